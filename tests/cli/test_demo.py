"""The whole demo: its turns, answers, output and files, without timings."""

import io
import json
from collections import Counter
from contextlib import closing, redirect_stdout
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cli_records import RunKamera, page
from PIL import Image
from rich.console import Console

from kamera_agent.cli.demo import meter
from kamera_agent.cli.demo.media import sketch
from kamera_agent.cli.demo.process import run_part
from kamera_agent.cli.demo.result import Totals, TurnResult
from kamera_agent.cli.demo.run import run_demo
from kamera_agent.cli.demo.scale import SCALES
from kamera_agent.cli.demo.table import turn_table
from kamera_agent.cli.demo.trace import follow, question_of
from kamera_agent.cli.demo.worker import Part
from kamera_agent.errors import KameraError
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.tasks import BINDING, TASKS
from kamera_agent.store.lmdb_store import LmdbStore

# The whole demo, over and over.
pytestmark = pytest.mark.timeout(600)

# The same days with smaller pictures.
DAY = replace(SCALES["day"], columns=8, rows=6)
LARGE = replace(SCALES["large"], columns=5, rows=4)


class Played(NamedTuple):
    """The results of a run."""

    report: dict[str, Any]
    printed: str
    store: Path
    out: Path

    @property
    def turns(self) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = self.report["turns"]
        return turns


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One run over a store that already holds another chunk."""
    folder, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with closing(LmdbStore(folder / "store")) as store:
        store.put_many([page("somebody else's")])
    (folder / "out").mkdir()
    with redirect_stdout(printed):
        run_demo(DAY, folder / "store", folder / "out")
    report = json.loads((folder / "out" / "demo.json").read_text())
    return Played(report, printed.getvalue(), folder / "store", folder / "out")


def origins(turn: dict[str, Any]) -> Counter[str]:
    return Counter(chunk["origin"] for chunk in turn["chunks"])


def test_a_day_is_what_is_followed() -> None:
    """Three in sight: the oldest goes; a look back takes its place; pages come before shots."""
    turns = follow("yard1 owners rooms yard1 keys <owners yard2 ~", 3)
    assert [(turn.event, turn.window) for turn in turns] == [
        ("see yard1", ("yard1",)),
        ("see owners", ("yard1", "owners")),
        ("see rooms", ("yard1", "owners", "rooms")),
        ("revisit yard1", ("owners", "rooms", "yard1")),
        ("see keys", ("rooms", "yard1", "keys")),
        ("look back owners", ("owners", "yard1", "keys")),
        ("see yard2", ("yard1", "keys", "yard2")),
        ("reorder", ("keys", "yard1", "yard2")),
    ]


def test_the_day_has_forty_turns_in_the_proportion_that_it_states() -> None:
    scale = SCALES["day"]
    actions = Counter(turn.action for turn in scale.measured)
    assert actions == {"see": 26, "revisit": 10, "look back": 2, "reorder": 2}
    assert {len(turn.window) for turn in scale.measured} == {12}
    assert {len(set(turn.window)) for turn in scale.measured} <= {10, 11, 12}
    # A look back is at what has left the window.
    windows = [scale.before, *scale.measured]
    assert all(turn.name not in before.window for before, turn in pairwise(windows) if turn.action == "look back")
    assert {turn.name for turn in scale.measured if turn.action != "reorder"} <= set(sketch(16, 12))


def test_every_task_is_asked_and_no_title_is_that_of_two_pages() -> None:
    pictures = sketch(DAY.columns, DAY.rows)
    questions = [question_of(turn, number, pictures) for number, turn in enumerate(DAY.measured, start=1)]
    assert {question.task for question in questions} == set(TASKS)
    assert {"Where", "How"} <= {question.text.split()[0] for question in questions if question.task == "track"}
    titles = {name.rstrip("0123456789"): page.title for name, page in pictures.items() if isinstance(page, Screen)}
    assert len(set(titles.values())) == 4


def test_a_page_of_prices_changes_in_one_cell_at_a_time() -> None:
    pictures = sketch(DAY.columns, DAY.rows)
    pages = [page for name, page in pictures.items() if name.startswith("prices")]
    differing = [
        [place for place, (old, new) in enumerate(zip(before.cells(), after.cells(), strict=True)) if old != new]
        for before, after in pairwise(pages)
    ]
    assert {len(cells) for cells in differing} == {1}
    assert len({cells[0] for cells in differing}) == len(differing)


def test_it_plays_the_whole_day(played: Played) -> None:
    assert [turn["number"] for turn in played.turns] == list(range(1, 41))
    windows = [tuple(chunk["name"] for chunk in turn["chunks"]) for turn in played.turns]
    assert windows == [turn.window for turn in DAY.measured]


def test_what_was_healed_ahead_is_kept_when_the_window_slides(played: Played) -> None:
    """Only the new picture and the question are computed, except after a restart and after a look back or reorder."""
    before = [None, *(turn.action for turn in DAY.measured)]
    for turn, planned, last in zip(played.turns, DAY.measured, before, strict=False):
        if planned.action == "see" and last != "look back" and turn["number"] - 1 != DAY.restart_after:
            assert origins(turn) == {"kept": 11, "computed": 1}
            assert turn["num_computed"]["kamera"] == turn["tokens"]["computed"]


def test_only_the_picture_that_comes_is_computed_whole(played: Played) -> None:
    """A new one always; a page that comes back only where a refresh of it leaves too much."""
    for turn, planned in zip(played.turns, DAY.measured, strict=True):
        computed = [chunk["name"] for chunk in turn["chunks"] if chunk["origin"] == "computed"]
        if planned.action == "see":
            assert computed == [planned.name]
        if planned.action == "revisit":
            assert computed in ([planned.name], [])
        assert sum(turn["tokens"].values()) == turn["num_computed"]["full"]


def test_the_prefix_cache_computes_all_after_the_oldest(played: Played) -> None:
    for turn, planned in zip(played.turns, DAY.measured, strict=True):
        computed = turn["num_computed"]
        assert computed["kamera"] < computed["prefix"] <= computed["full"]
        if planned.action == "see":
            assert computed["prefix"] > 11 / 12 * computed["full"]


def test_the_second_process_goes_on_from_the_disk(played: Played) -> None:
    assert DAY.restart_after
    before, after = played.turns[DAY.restart_after - 1 : DAY.restart_after + 1]
    assert (before["process"], after["process"]) == (1, 2)
    assert origins(after) == {"recalled": 11, "computed": 1}
    assert after["bytes_read"] > 0


def test_answers_over_exact_spans_are_those_of_a_full_prefill(played: Played) -> None:
    exact = [turn for turn in played.turns if not turn["tokens"]["moved"] + turn["tokens"]["recalled"]]
    assert len(exact) > 20
    # The rounding of float32, squared.
    assert max(turn["kl"] for turn in exact) < np.finfo(np.float32).eps


def test_the_totals_are_those_of_the_turns(played: Played) -> None:
    report, turns = played.report, played.turns
    middle = {way: float(np.median([turn["first_token_ms"][way] for turn in turns])) for way in ("kamera", "prefix")}
    assert report["prefix_over_kamera"] == pytest.approx(middle["prefix"] / middle["kamera"])
    for way in ("kamera", "prefix", "full", "blind"):
        assert report["right"][way] == sum(turn["answers"][way] == turn["truth"] for turn in turns)
    assert report["largest_kl"] == max(turn["kl"] for turn in turns) < 0.05


def test_the_report_tells_its_conditions(played: Played) -> None:
    conditions = played.report["conditions"]
    assert conditions["weights"] == "pocket"
    assert {name for turn in DAY.measured for name in turn.window} == set(conditions["tokens_per_chunk"])
    assert {"date", "dtype", "num_parameters", "num_threads", "versions"} <= set(conditions)


def test_it_prints_a_row_per_turn_a_sentence_and_the_files(played: Played) -> None:
    assert "pocket model" in played.printed
    assert all(f"{turn.event} " in played.printed for turn in DAY.measured)
    assert played.printed.count("Right answers of 40: ") == 1
    assert str(played.out / "demo.json") in played.printed


@pytest.mark.parametrize("width", [80, 100])
def test_a_row_fits_the_terminal(played: Played, width: int) -> None:
    """The question is cut; nothing else is."""
    printed = io.StringIO()
    console = Console(file=printed, width=width)
    results = [TurnResult.from_json(turn) for turn in played.turns]
    slow = [replace(result, first_token_ms=dict.fromkeys(result.first_token_ms, 12345.0)) for result in results]
    console.print(turn_table(slow))
    rows = [row for row in printed.getvalue().splitlines() if row.strip()]
    assert max(map(len, rows)) <= width
    assert len(rows) == len(results) + 2
    for result, row in zip(results, rows[2:], strict=True):
        assert f" {result.event} " in row
        assert row.count("12,345") == 3
        assert row.split(f"{result.kl:.0e}")[1].split()[1].startswith(result.question[:3])


def test_the_order_of_the_ways_changes_from_turn_to_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way is measured first once in three turns, after all of them were warmed up. The results do not change."""
    order: list[str] = []

    def note(way: str, method: Any) -> Any:
        return lambda *args: (order.append(way), method(*args))[1]

    monkeypatch.setattr(meter, "_prefill", note("full", meter._prefill))
    answer = meter._answer
    with closing(meter.Meter(DAY, tmp_path / "store")) as measured:
        measured.warm_up()
        monkeypatch.setattr(
            meter,
            "_answer",
            lambda kamera, *args: note("prefix" if kamera is measured._prefix else "kamera", answer)(kamera, *args),
        )
        order.clear()
        results = [measured.measure(DAY.measured[index], index + 1, 1, full=True) for index in range(3)]
    turns = [order[index : index + 3] for index in range(0, 9, 3)]
    assert [sorted(places) for places in zip(*turns, strict=True)] == [["full", "kamera", "prefix"]] * 3
    assert [result.answers["kamera"] for result in results] == [result.answers["full"] for result in results]


def test_it_draws_a_picture(played: Played) -> None:
    with Image.open(played.out / "demo.png") as picture:
        assert picture.size == (1920, 1200)


def test_it_keeps_what_is_not_its_own(played: Played) -> None:
    with closing(LmdbStore(played.store)) as store:
        assert page("somebody else's").header.chunk in {header.chunk for header in store.headers()}
        assert store.check().problems == ()


def test_a_process_that_fails_is_one_clean_line(tmp_path: Path) -> None:
    with pytest.raises(KameraError, match=r"^Process 3 of the demo failed: IndexError"):
        list(run_part(Part(DAY, 3, len(DAY.measured), len(DAY.measured) + 1, str(tmp_path / "store"))))


def test_blind_reuse_gets_binding_questions_wrong(played: Played) -> None:
    """Kamera answers as a full prefill does in every turn; blind reuse misses relations of two pictures."""
    assert all(turn["answers"]["kamera"] == turn["answers"]["full"] for turn in played.turns)
    pictures = sketch(DAY.columns, DAY.rows)
    tasks = [question_of(turn, number, pictures).task for number, turn in enumerate(DAY.measured, start=1)]
    wrong = [
        task
        for task, turn in zip(tasks, played.turns, strict=True)
        if turn["answers"]["kamera"] == turn["truth"] != turn["answers"]["blind"]
    ]
    assert len(wrong) >= 8
    assert sum(task in BINDING for task in wrong) >= 0.8 * len(wrong)


def test_large_screenshots_are_measured_for_time_alone(tmp_path: Path) -> None:
    """The same keys; a full prefill in the last turn only; nothing is right or wrong."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        run_demo(LARGE, tmp_path / "store", tmp_path)
    report = json.loads((tmp_path / "demo.json").read_text())
    assert [turn["event"].split()[0] for turn in report["turns"]] == ["see", "see", "revisit", "see", "look", "see"]
    assert [way for turn in report["turns"] for way in turn["first_token_ms"] if way == "full"] == ["full"]
    assert (report["right"]["kamera"], report["right"]["full"]) == (None, None)
    assert report["prefix_over_kamera"] > 0
    assert report["conditions"]["weights"] == "random"
    assert [sum(origins(turn).values()) for turn in report["turns"]] == [4] * 6
    assert "Right answers" not in printed.getvalue()
    assert Totals.of([TurnResult.from_json(turn) for turn in report["turns"]]).largest_kl == report["turns"][-1]["kl"]


def test_files_that_cannot_be_written_are_refused_before_any_work(tmp_path: Path, run_kamera: RunKamera) -> None:
    (tmp_path / "out").write_text("")
    done = run_kamera("demo", "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("kamera: ")
    assert not (tmp_path / "store").exists()


def test_a_missing_matplotlib_is_named_before_any_work(
    tmp_path: Path, run_kamera: RunKamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kamera_agent.cli.arguments.find_spec", lambda name: None)
    done = run_kamera("demo", "--store", tmp_path / "store", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "pip install 'kamera-agent[examples]'" in done.stderr
    assert list(tmp_path.iterdir()) == []
