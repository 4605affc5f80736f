"""What a notebook shows: read back with a parser, against the spans, the plan and the pixels."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from models import MakeKamera, screenshot
from PIL import Image

from kamera_agent import Plan, PlanRow, Reply, Timings, Usage, Window
from kamera_agent.window.notebook import STYLE

HOSTILE = """</td></div><script>alert("1")</script><img src=x onerror='alert(2)'> &amp; <!-- "quoted" -->"""
TAGS = {"div", "style", "p", "b", "small", "span", "img", "details", "summary"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"class", "style", "title", "src"}


class Page(HTMLParser):
    """Elements, texts and table cells of a piece of HTML. Every element must be closed by its own tag."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]
        head = "data:image/jpeg;base64,"
        assert all(source.startswith(head) for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source[len(head) :]))) for source in sources]


def read(view: Any) -> Page:
    return Page(view._repr_html_())


@pytest.fixture
def window(make: MakeKamera) -> Window:
    window = make().window("Answer.")
    window.add_text(HOSTILE)
    window.add_image(screenshot(1))
    window.add_frames([screenshot(seed, 56, 84) for seed in range(20)])
    window.add_document(HOSTILE)
    return window


def shown(window: Window, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What show() hands to IPython."""
    views: list[Any] = []
    ipython = SimpleNamespace(get_ipython=lambda: object(), display=SimpleNamespace(display=views.append))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    window.show()
    (view,) = views
    return view


def test_no_text_becomes_markup(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PlanRow(HOSTILE, "text", 3, 0, None, "computed", True)
    reply = Reply(HOSTILE, None, "stop", Usage(*[1] * 11), Timings(*[1.0] * 6), Plan((row,)))
    text = next(span for span in window.spans if span.text == HOSTILE)
    for view, times in ((window, 2), (text, 1), (reply.plan, 2), (reply, 3), (shown(window, monkeypatch), 2)):
        page = read(view)
        assert {tag for tag, _ in page.elements} <= TAGS
        assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
        titles = [attributes.get("title") or "" for _, attributes in page.elements]
        assert (page.text + "".join(titles)).count(HOSTILE) == times


def test_a_window_shows_its_spans(window: Window) -> None:
    before = read(window)
    assert {row[4] for row in before.rows[1:]} == {"not computed"}
    window.generate("What is it?", max_new_tokens=2)
    page = read(window)
    for row, span in zip(page.rows[1:], window.spans, strict=True):
        assert row[0] == f"{span.id} {span.role}"
        assert (row[2], row[3], row[4]) == (f"{span.num_tokens:,}", f"{span.position:,}", span.origin)
    # The image, and eight of the frames, the first and the last among them.
    assert [picture.size for picture in page.pictures] == [(96, 64), *[(48, 32)] * 8]
    for picture, seed in ((page.pictures[1], 0), (page.pictures[8], 19)):
        expected = Image.fromarray(screenshot(seed, 56, 84)).resize((48, 32))
        assert np.abs(np.asarray(picture, np.int16) - np.asarray(expected, np.int16)).mean() < 20


def test_a_span_shows_its_own(window: Window) -> None:
    image = next(span for span in window.spans if span.kind == "image")
    page = read(image)
    assert [row[0] for row in page.rows] == ["span", "image3 user"]
    assert len(page.pictures) == 1
    assert "168×112" in page.text


def test_a_plan_shows_its_rows(window: Window) -> None:
    window.generate("What is it?", max_new_tokens=2)
    window.slide(keep_last=1)
    plan = window.plan()
    page = read(plan)
    assert [(row[0], row[2], row[5]) for row in page.rows[1:]] == [
        (row.id, str(row.num_tokens), row.origin) for row in plan.rows
    ]
    widths = [re.search(r"flex-grow: (\d+)", attributes.get("style") or "") for _, attributes in page.elements]
    assert sum(int(width[1]) for width in widths if width) == plan.num_tokens()


def test_a_reply_shows_its_text_and_cost(window: Window) -> None:
    reply = window.generate("What is it?", max_new_tokens=3)
    page = read(reply)
    assert reply.text in page.text
    assert f"{reply.usage.tokens_computed:,} tokens computed" in page.text
    assert "2 of 2 images and clips encoded" in page.text
    assert [row[0] for row in page.rows[1:]] == [row.id for row in reply.plan.rows]


def test_show_writes_what_the_model_sees(make: MakeKamera, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the model's own chat template, which also closes the last turn."""
    kamera = make()
    window = kamera.window("Answer.")
    window.add_text("What is this?")
    window.add_document("A long page.")
    window.show()
    messages = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "What is this?A long page."}]
    written = kamera.family.processors.tokenizer.apply_chat_template(messages, tokenize=False)
    out = capsys.readouterr().out.removesuffix("\n")
    assert out
    assert written.startswith(out)
    assert written.removeprefix(out) in ("<|im_end|>", "<|im_end|>\n")
    window.add_image(screenshot(0))
    window.show()
    assert capsys.readouterr().out == f"{out}[image4: 168×112, 26 tokens]\n"


def test_show_hands_html_to_a_notebook(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    page = read(shown(window, monkeypatch))
    assert len(page.pictures) == 1 + 8
    assert page.text.index("Answer.") < page.text.index("alert(2)") < page.text.index("image3, user, 26 tokens")


def test_no_ground_of_its_own() -> None:
    """A notebook is light or dark: nothing but marks of origins has a colour."""
    assert "background" not in STYLE
    assert re.findall(r"(?<!-)color: (\w+)", STYLE) == ["inherit"]
