"""The whole demo: its turns, answers, output and files, without timings."""

import io
import json
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cli_records import RunKamera, page
from PIL import Image

from kamera_agent.cli.demo import meter
from kamera_agent.cli.demo.process import run_part
from kamera_agent.cli.demo.run import run_demo
from kamera_agent.cli.demo.trace import RESTART_AFTER, TRACE
from kamera_agent.cli.demo.worker import Part
from kamera_agent.errors import KameraError
from kamera_agent.pocket.tasks import BINDING
from kamera_agent.store.lmdb_store import LmdbStore

# The whole demo, over and over.
pytestmark = pytest.mark.timeout(600)


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
        run_demo(folder / "store", folder / "out")
    report = json.loads((folder / "out" / "demo.json").read_text())
    return Played(report, printed.getvalue(), folder / "store", folder / "out")


def test_it_plays_the_whole_trace(played: Played) -> None:
    assert [turn["number"] for turn in played.turns] == list(range(1, len(TRACE) + 1))
    windows = [tuple(chunk["name"] for chunk in turn["chunks"]) for turn in played.turns]
    assert windows == [turn.window for turn in TRACE]


def test_it_shows_every_origin(played: Played) -> None:
    origins = {chunk["origin"] for turn in played.turns for chunk in turn["chunks"]}
    assert origins == {"computed", "kept", "moved", "recalled"}


def test_each_turn_computes_only_what_is_new(played: Played) -> None:
    """A chunk is computed only in the turn that sees it."""
    for turn, planned in zip(played.turns, TRACE, strict=True):
        computed = [chunk["name"] for chunk in turn["chunks"] if chunk["origin"] == "computed"]
        assert computed == ([planned.window[-1]] if planned.action == "see" else [])
        assert sum(turn["tokens"].values()) == turn["num_computed"]["full"]


def test_the_prefix_cache_computes_what_an_edit_moved(played: Played) -> None:
    for turn in played.turns:
        moved = any(chunk["origin"] in ("moved", "recalled") for chunk in turn["chunks"])
        computed = turn["num_computed"]
        assert (computed["kamera"] < computed["prefix"]) == moved
        assert computed["prefix"] <= computed["full"]


def test_tokens_that_a_refresh_computes_count(played: Played) -> None:
    """A reorder computes nothing whole but the question: the rest is refreshed."""
    for turn in played.turns:
        refreshed = turn["num_computed"]["kamera"] - turn["tokens"]["computed"]
        assert refreshed >= 0
        if turn["event"].startswith("reorder"):
            assert refreshed > turn["tokens"]["moved"] / 4


def test_the_second_process_goes_on_from_the_disk(played: Played) -> None:
    before, after = played.turns[RESTART_AFTER - 1 : RESTART_AFTER + 1]
    assert (before["process"], after["process"]) == (1, 2)
    assert [chunk["origin"] for chunk in after["chunks"]] == ["recalled", "recalled", "recalled", "computed"]
    assert after["bytes_read"] > 0


def test_answers_over_exact_spans_are_those_of_a_full_prefill(played: Played) -> None:
    exact = [turn for turn in played.turns if not turn["tokens"]["moved"] + turn["tokens"]["recalled"]]
    assert len(exact) == 4
    # The rounding of float32, squared.
    assert max(turn["kl"] for turn in exact) < np.finfo(np.float32).eps


def test_the_report_tells_its_conditions(played: Played) -> None:
    conditions = played.report["conditions"]
    assert conditions["weights"] == "pocket"
    assert set(conditions["tokens_per_chunk"]) == {name for turn in TRACE for name in turn.window}
    assert {"date", "dtype", "num_parameters", "num_threads", "versions"} <= set(conditions)


def test_it_prints_a_row_per_turn_and_the_files(played: Played) -> None:
    assert "pocket model" in played.printed
    assert all(f"{turn.event} " in played.printed for turn in TRACE)
    assert "3 recalled 1 computed" in played.printed
    assert "Between the turns" in played.printed
    assert str(played.out / "demo.json") in played.printed


def test_the_order_of_the_ways_changes_from_turn_to_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way is measured first once in three turns, after all of them were warmed up. The results do not change."""
    order: list[str] = []

    def note(way: str, method: Any) -> Any:
        return lambda *args: (order.append(way), method(*args))[1]

    monkeypatch.setattr(meter, "_prefill", note("full", meter._prefill))
    answer = meter._answer
    with closing(meter.Meter(tmp_path / "store")) as measured:
        measured.warm_up()
        monkeypatch.setattr(
            meter,
            "_answer",
            lambda kamera, *args: note("prefix" if kamera is measured._prefix else "kamera", answer)(kamera, *args),
        )
        order.clear()
        results = [measured.measure(TRACE[index], index + 1, 1) for index in range(3)]
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


def test_the_trace_is_a_window_of_four() -> None:
    seen: set[str] = set()
    before: tuple[str, ...] = ()
    for turn in TRACE:
        assert len(turn.window) == min(len(seen) + (turn.action == "see"), 4)
        entered = set(turn.window) - set(before)
        match turn.action:
            case "see":
                assert entered == {turn.window[-1]} or before[0] not in turn.window
                assert turn.window[-1] not in seen
            case "reorder":
                assert (sorted(turn.window), turn.window != before) == (sorted(before), True)
            case "recall":
                assert entered == {turn.window[0]} <= seen
        seen, before = seen | set(turn.window), turn.window
    actions = [turn.action for turn in TRACE]
    assert [actions.count(action) for action in ("see", "reorder", "recall")] == [12, 2, 2]


def test_a_process_that_fails_is_one_clean_line(tmp_path: Path) -> None:
    with pytest.raises(KameraError, match=r"^Process 3 of the demo failed: IndexError"):
        list(run_part(Part(3, len(TRACE), len(TRACE) + 1, str(tmp_path / "store"))))


def test_blind_reuse_gets_binding_questions_wrong(played: Played) -> None:
    """Kamera answers as a full prefill does in at least 14 of 16 turns; blind reuse misses relations of two chunks."""
    answers = [turn["answers"] for turn in played.turns]
    assert sum(answer["kamera"] == answer["full"] for answer in answers) >= 14
    wrong = [
        turn
        for turn in played.turns
        if turn["answers"]["full"] == turn["answers"]["kamera"] == turn["truth"] != turn["answers"]["blind"]
    ]
    assert len(wrong) >= 3
    assert all(TRACE[turn["number"] - 1].task in BINDING for turn in wrong)


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
