"""Traces and their page: the account by hand, and the page as a browser shows it."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kamera_agent import InputError
from kamera_agent.cli import app
from kamera_agent.report.account import account
from kamera_agent.report.page import make_page
from kamera_agent.telemetry.drift import Drift
from kamera_agent.telemetry.record import AnswerRecord, Memory, ReplySpan
from kamera_agent.telemetry.trace import Trace, read_trace
from kamera_agent.window.evidence import Stale
from kamera_agent.window.plan import Origin, PlanRow
from kamera_agent.window.reply import Timings, Usage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def row(name: str, tokens: int, origin: Origin, position: int = 0, moved_from: int | None = None) -> PlanRow:
    return PlanRow(name, "image" if name.startswith("image") else "text", tokens, position, moved_from, origin, True)


def record(conversation: str, *rows: PlanRow, reply: int = 3, drift: Drift | None = None) -> AnswerRecord:
    return AnswerRecord(
        time="2026-11-24T12:00:00.000+00:00",
        model="pocket",
        conversation=conversation,
        rows=rows,
        reply=ReplySpan("reply1", reply, "stop"),
        usage=Usage(0, 0, 0, 0, 0, 0, reply, 1, 2, bytes_read=10**6, bytes_written=2 * 10**6),
        timings=Timings(0.0, 0.0, 0.0, first_token_ms=12.5, decode_ms=0.0),
        memory=Memory(pool_bytes=3 * 10**6, dropped_bytes=10**5),
        drift=drift,
    )


FIRST = record("a", row("anchor", 3, "computed"), row("image1", 100, "computed"), row("text1", 7, "computed"))
# image1 is gone; the spans after it are moved.
SECOND = record(
    "a",
    row("anchor", 3, "kept"),
    row("text1", 7, "moved", 3, 103),
    row("reply1", 3, "moved", 10, 110),
    row("image2", 50, "computed", 13),
)
OTHER = record("b", row("anchor", 3, "computed"), row("<script>", 5, "computed"))
# Nothing is gone; a question is added.
THIRD = record("a", *(row(r.id, r.num_tokens, "kept") for r in SECOND.rows), row("text2", 4, "computed"), reply=1)
# As THIRD, with its drift.
FOURTH = record("a", *(row(r.id, r.num_tokens, "kept") for r in THIRD.rows), drift=Drift(0.001234, agrees=False))

# A line of the first version of traces, which had fewer figures, with an unknown field.
OLD_LINE = (
    '{"time":"2026-11-24T12:00:00.000+00:00","model":"pocket","conversation":"a","rows":[{"id":"image1",'
    '"kind":"image","num_tokens":100,"position":3,"moved_from":103,"origin":"recalled","exact":false,'
    '"match":"survivor","error":0.25,"text_match":0.5,"approximate":true}],"reply":{"id":"reply1","num_tokens":3,'
    '"finish":"length"},"usage":{"tokens_computed":0,"tokens_kept":0,"tokens_moved":0,"tokens_recalled":100,'
    '"tokens_blind":0,"tokens_generated":3,"encoder_calls":0,"encoder_avoided":1,"bytes_read":7,"bytes_written":8},'
    '"timings":{"plan_ms":1.5,"rebuild_ms":2,"prefill_ms":3.0,"first_token_ms":7.25,"decode_ms":9.0},'
    '"thumbnails":{"image1":"AAAA"},"mood":"good"}\n'
)


def test_the_account_by_hand() -> None:
    turns = account([FIRST, SECOND, OTHER, THIRD])
    assert [(turn.conversation, turn.number) for turn in turns] == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
    assert [turn.full for turn in turns] == [110, 63, 8, 67]
    assert [turn.computed for turn in turns] == [110, 50, 8, 4]
    # The second shares only the anchor with the first; the third begins with the whole second.
    assert [turn.prefix for turn in turns] == [110, 60, 8, 4]


def test_a_prefix_cache_has_the_beginning_of_a_text_that_was_written_anew() -> None:
    first = record("a", row("anchor", 3, "computed"), row("text1", 100, "computed"), row("image1", 50, "computed"))
    text = replace(row("text2", 120, "kept"), near="text1", refreshed=0.25)
    second = record("a", row("anchor", 3, "kept"), text, row("image1", 50, "moved", 123, 103))
    _, turn = account([first, second])
    assert (turn.full, turn.computed, turn.prefix) == (173, 30, 80)


def test_a_prefix_cache_has_what_a_conversation_takes_over_from_another() -> None:
    text = replace(row("text1", 120, "kept"), near="text0", refreshed=0.25)
    [turn] = account([record("a", row("anchor", 3, "kept"), text, row("image1", 50, "recalled", 123))])
    assert (turn.full, turn.computed, turn.prefix) == (173, 30, 80)


def test_refreshed_tokens_count_by_their_share_of_the_layers() -> None:
    image = replace(row("image1", 100, "kept"), refresh=True, refreshed=0.25)
    [turn] = account([record("a", row("anchor", 3, "kept"), image, row("text1", 7, "computed"))])
    assert turn.computed == 25 + 7


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "deep" / "trace.jsonl")
    for written in (FIRST, FOURTH):
        trace.write(written)
    assert read_trace(trace.path) == [FIRST, FOURTH]
    with trace.path.open("a") as file:
        file.write('{"rows": [')
    assert read_trace(trace.path) == [FIRST, FOURTH]


def test_a_drift_that_was_measured_later(tmp_path: Path) -> None:
    """Its record names the answer by time and conversation."""
    trace = Trace(tmp_path / "trace.jsonl")
    later = replace(THIRD, time="2026-11-24T12:00:01.000+00:00")
    for written in (THIRD, OTHER, later):
        trace.write(written)
    trace.write_drift(THIRD, Drift(0.5, agrees=True))
    trace.write(FOURTH)
    assert json.loads(trace.path.read_text("utf-8").splitlines()[3]) == {
        "answer": THIRD.time,
        "conversation": "a",
        "drift": {"kl": 0.5, "agrees": True},
    }
    assert read_trace(trace.path) == [replace(THIRD, drift=Drift(0.5, agrees=True)), OTHER, later, FOURTH]


def test_the_table_of_drift_by_hand() -> None:
    """Ten of forty tokens have never seen a chunk before them, and half of their KV was computed again."""

    def drifted(kl: float, error: float, stale: Stale | None = None) -> AnswerRecord:
        recalled = replace(row("image1", 10, "recalled"), error=error, stale=stale, refreshed=0.5 if stale else 0.0)
        return record("<a>", row("anchor", 30, "kept"), recalled, drift=Drift(kl, agrees=kl < 0.1))

    records = [drifted(0.001, 0.01), drifted(2.0, 0.03, Stale(unseen=("cd",))), OTHER, drifted(0.02, 0.02)]
    page = make_page(account(records), "trace")
    table = page[page.index('id="drift"') : page.index("</table>")]
    assert [re.findall("<td>(.*?)</td>", line) for line in table.split("<tr>")[2:]] == [
        ["2", "&lt;a&gt;", "2", "no", "0.030", "25%", "", "", "12%"],
        ["3", "&lt;a&gt;", "0.02", "yes", "0.020", "", "", "", ""],
        ["1", "&lt;a&gt;", "0.001", "yes", "0.010", "", "", "", ""],
        # Two are equal and one is above them: ranks .5, .5, 2 against 0, 1, 2.
        ["", "rank correlation with the KL", "", "", "1.00", "0.87", "", "", "0.87"],
    ]
    assert "2 of 3 compared answers" in page
    assert "The median KL is 0.02 nats, the largest 2." in page
    assert 'id="drift"' not in make_page(account([FIRST]), "trace")


def test_the_names_in_the_file(tmp_path: Path) -> None:
    """Other programs read traces, so these names are as fixed as those of the package."""
    trace = Trace(tmp_path / "trace.jsonl")
    trace.write(FOURTH)
    (line,) = trace.path.read_text("utf-8").splitlines()
    written = json.loads(line)
    assert written == {
        "time": "2026-11-24T12:00:00.000+00:00",
        "model": "pocket",
        "conversation": "a",
        "rows": [asdict(row) for row in FOURTH.rows],
        "reply": {"id": "reply1", "num_tokens": 3, "finish": "stop"},
        "usage": asdict(FOURTH.usage),
        "timings": asdict(FOURTH.timings),
        "memory": {"pool_bytes": 3 * 10**6, "dropped_bytes": 10**5},
        "drift": {"kl": 0.001234, "agrees": False},
        "exact_only": False,
        "thumbnails": {},
    }


def test_a_trace_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(OLD_LINE, "utf-8")
    assert read_trace(path) == [
        AnswerRecord(
            time="2026-11-24T12:00:00.000+00:00",
            model="pocket",
            conversation="a",
            rows=(PlanRow("image1", "image", 100, 3, 103, "recalled", False, "survivor", 0.25, 0.5, True),),
            reply=ReplySpan("reply1", 3, "length"),
            usage=Usage(0, 0, 0, 100, 0, 0, 3, 0, 1, 7, 8),
            timings=Timings(1.5, 2.0, 3.0, 7.25, 9.0),
            memory=Memory(0, 0),
            drift=None,
            thumbnails={"image1": "AAAA"},
        )
    ]


@pytest.mark.parametrize(
    "content",
    ["no json\n", "[1]\n", '{"a": 1}\n', "\xff\xfe", OLD_LINE.replace('"recalled"', '"borrowed"'), OLD_LINE + "\n"],
)
def test_what_is_no_trace(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"trace\.jsonl"):
        read_trace(path)


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="no answer"):
        make_page([], "none")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = make_page(account([FIRST, SECOND, OTHER]), "<b>trace</b>")
    assert "<b>trace" not in page
    assert "<script>" not in page[page.index('id="data"') : page.index("</script>", page.index('id="data"'))]
    assert "src=" not in page
    assert page.replace("http-equiv", "").count("http") == page.count("http://www.w3.org/2000/svg")
    assert "Content-Security-Policy\"\n      content=\"default-src 'none'; img-src data:;" in page


def test_a_thumbnail_that_is_no_base64_is_refused(tmp_path: Path) -> None:
    """The page would put it into a URL, which a browser may fetch."""
    trace = Trace(tmp_path / "trace.jsonl")
    trace.write(replace(FIRST, thumbnails={"image1": "AAAA); background: url(http://example.org/?"}))
    with pytest.raises(InputError, match=r"is not a record of a trace: .*thumbnails.image1"):
        read_trace(trace.path)


def test_kamera_report_writes_the_page(tmp_path: Path) -> None:
    Trace(tmp_path / "trace.jsonl").write(FIRST)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "trace.jsonl"), "-o", str(tmp_path / "out.html")])
    assert done.exit_code == 0, done.stderr
    assert "110" in (tmp_path / "out.html").read_text("utf-8")
    failed = CliRunner().invoke(app, ["report", str(tmp_path / "none.jsonl")])
    assert failed.exit_code == 1
    assert failed.stderr.startswith("kamera: ")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_click_on_a_turn_shows_its_plan(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = tmp_path / "page.html"
    path.write_text(make_page(account([FIRST, SECOND, OTHER, THIRD, FOURTH]), "trace.jsonl"), "utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        tiles = dict(zip(*(page.locator(f".tile {part}").all_inner_texts() for part in ("h2", "b")), strict=True))
        assert (tiles["read from store"], tiles["largest window"]) == ("5.0 MB", "3.0 MB")
        assert page.locator(".turn").count() == 5
        assert page.locator("#chart rect").count() == 15
        page.locator(".turn").nth(1).click()
        cells = page.locator("#turns .plan td").all_inner_texts()
        assert cells[:7] == ["anchor", "text", "3", "0", "", "kept", "yes"]
        assert cells[10:16] == ["text1", "text", "7", "3", "103", "moved"]
        page.locator(".turn").nth(1).click()
        assert page.locator("#turns .plan").count() == 0
        assert [text.split("\n")[-1] for text in page.locator(".turn .name").all_inner_texts()[3:]] == [
            "4 of 67, 13 ms",
            "drift 0.0012",
        ]
        page.locator(".turn").nth(4).click()
        assert page.locator("#turns .plan p").inner_text() == (
            "Drift from a full prefill: KL 0.0012 nats, another likeliest first token."
        )
        # Nothing is wider than the page.
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        browser.close()
    assert complaints == []


# Elements outside the tables that reach beyond the window, or hide a part of what they hold.
CUT_OFF = """
[...document.body.querySelectorAll("*")].filter(element => !element.closest(".plan, svg, script, style"))
  .filter(element => element.getBoundingClientRect().right > innerWidth + .5
    || (getComputedStyle(element).overflowX === "hidden" && element.scrollWidth > element.clientWidth))
  .map(element => element.outerHTML.slice(0, 80))
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_nothing_is_cut_off_at_any_width(tmp_path: Path) -> None:
    """A trace with a long name, a conversation of one long word, and a window of hundreds of spans."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    many = record("b" * 70, *(row(f"text{number}", 3, "moved", number, number + 1) for number in range(600)))
    path = tmp_path / "page.html"
    path.write_text(make_page(account([FIRST, SECOND, many, *[THIRD] * 60]), "trace" * 20), "utf-8")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        # The page's policy forbids the eval by which Playwright waits for a function.
        page = browser.new_page(viewport={"width": 1280, "height": 900}, bypass_csp=True)
        page.goto(path.as_uri())
        page.locator(".turn").nth(1).click()
        page.locator(".turn").nth(2).click()
        for width in (1280, 400, 320):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(f"document.getElementById('chart').viewBox.baseVal.width < {width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(CUT_OFF) == []
            # The table is wider than a phone, and scrolls inside its box.
            box = page.locator("#turns .plan").first
            assert box.evaluate("box => { box.scrollLeft = 10_000; return box.scrollLeft > 0; }") == (width < 640)
            # The texts of the chart keep their size.
            heights = page.locator("#chart text").evaluate_all(
                "all => all.map(text => text.getBoundingClientRect().height)"
            )
            assert min(heights) >= 10
        browser.close()
