"""The GPU benchmarks at a size for a CPU."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import TINY

from benchmarks import kernels
from benchmarks.baselines import Baselines
from benchmarks.gpu_window import EVENTS, Bench, Scene, measure
from benchmarks.kernels import RANKS, Shape, cells, measure_cpu
from benchmarks.pair import Pair
from benchmarks.session import PARTS, Session
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.window.healer import Healer
from kamera_agent.window.window import Window

TINY_SCENE = Scene(num_screens=3, screen=(112, 168), num_frames=4, frame=(56, 84))
# K and V of a screenshot: 26 tokens, 4 layers, 2 heads of 16 each, float32.
SCREEN_BYTES = 26 * 4 * 2 * 2 * 16 * 4


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return measure(build_model(TINY), build_processor(TINY), TINY_SCENE, num_rounds=1)


def test_window(result: dict[str, Any]) -> None:
    """Every event is measured. It computes only the new screenshot, the question and the markup of the turns."""
    assert tuple(result) == EVENTS
    tokens = {event: figures["tokens_computed"] for event, figures in result.items()}
    assert tokens["slide"] == tokens["reorder"] + 26
    assert tokens["reorder"] == tokens["recall_memory"] == tokens["recall_disk"]
    assert all(figures["tokens_full"] > 3 * 26 + 4 * 8 for figures in result.values())
    assert all(figures["ours_ms"] > 0 < figures["full_ms"] for figures in result.values())


def test_the_parts_of_a_turn(result: dict[str, Any]) -> None:
    """They add up to its time, and only a recall reads from the store: one screenshot."""
    for figures in result.values():
        assert sum(figures[f"{part}_ms"] for part in PARTS) == pytest.approx(figures["ours_ms"], abs=0.1)
    assert [result[event]["bytes_read"] for event in EVENTS] == [0, 0, SCREEN_BYTES, SCREEN_BYTES]


def test_what_refreshing_adds(result: dict[str, Any]) -> None:
    """Refreshing has a figure of its own in every event of the memory tier, with its own parts."""
    *with_refresh, disk = (result[event] for event in EVENTS)
    for figures in with_refresh:
        assert sum(figures[f"refreshed_{part}_ms"] for part in PARTS) == pytest.approx(figures["refreshed_ms"], abs=0.1)
        # About a third of all but the span in front: two screenshots at least.
        assert figures["tokens_refreshed"] > 2 * 26 / 3
        assert figures["refreshed"] == pytest.approx(figures["refreshed_ms"] / figures["ours_ms"], rel=0.01)
    assert disk["tokens_refreshed"] == 0
    assert "refreshed" not in disk


def test_nothing_but_the_turn_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours refreshes nothing, and no thread heals, which would take the device from the baselines."""
    woken: list[Window] = []
    monkeypatch.setattr(Healer, "wake", lambda self, window: woken.append(window))
    bench = Bench(build_model(TINY), build_processor(TINY), TINY_SCENE, str(tmp_path))
    bench.round(0)
    bench.close()
    assert not woken


def test_the_order_of_the_ways_changes_from_round_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """In four rounds, each baseline comes before the other twice, and it and refreshed come before ours twice."""
    order: list[str] = []

    def note(owner: type, name: str) -> None:
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: (order.append(name), method(*args, **kwargs))[1])

    for owner, name in [(Baselines, "_full_ms"), (Baselines, "_prefix_ms"), (Session, "measure")]:
        note(owner, name)
    note(Pair, "_refreshed")
    scene = Scene(num_screens=2, screen=(56, 84), num_frames=1, frame=(56, 84))
    measure(build_model(TINY), build_processor(TINY), scene, num_rounds=3)
    rounds = [order[index : index + 9] for index in range(0, 36, 9)]

    def comes_first(one: str, other: str) -> list[bool]:
        return sorted(some.index(one) < some.index(other) for some in rounds)

    for pair in [("_full_ms", "_prefix_ms"), ("_full_ms", "measure"), ("_refreshed", "measure")]:
        assert comes_first(*pair) == [False, False, True, True]


def test_every_round_is_printed_as_it_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A run that is stopped has its rounds in its output."""
    scene = Scene(num_screens=2, screen=(56, 84), num_frames=1, frame=(56, 84))
    measure(build_model(TINY), build_processor(TINY), scene, num_rounds=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [
        [f"round {number}", event] for number in (0, 1) for event in EVENTS
    ]
    assert all("ours" in line and "plan" in line for line in lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_window_says_what_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_window", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "CUDA device" in done.stderr
    assert not done.stdout


def test_kernels(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell for every operation. The bytes are those of K, V, factors and tables, each moved once."""
    monkeypatch.setattr(kernels, "TOKENS", (8, 16, 24))
    measured = list(cells(measure_cpu, {"tiny": Shape(2, (2, 8), (1, 16))}, (8, 16), rounds=1))
    assert [cell.get("rank") for cell in measured] == [*RANKS, *RANKS]
    assert kernels.ratio(measured, "rebuild", 16) == measured[len(RANKS) + 2]["ratio"]
    assert len(capsys.readouterr().out.splitlines()) == len(measured)
    load = kernels.Workload(Shape(2, (2, 8), (1, 16)), 16, 4, torch.device("cpu"), torch.float32)
    keys, values = 2 * 2 * 16 * 8, 2 * 16 * 16
    factors, tables = 2 * (16 * 4 + 4 * 32), 2 * 16 * 8
    assert load.num_bytes == 4 * (3 * keys + 2 * values + factors + tables)
