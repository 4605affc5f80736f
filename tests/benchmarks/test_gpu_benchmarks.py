"""The GPU benchmarks at a size for a CPU."""

import subprocess
import sys

import pytest
import torch
from models import TINY

from benchmarks import kernels
from benchmarks.baselines import Baselines
from benchmarks.gpu_window import EVENTS, Scene, measure
from benchmarks.kernels import RANKS, Shape, cells, measure_cpu
from benchmarks.session import Session
from kamera_agent.pocket.model import build_model, build_processor


def test_window() -> None:
    """Every event is measured. It computes only the new screenshot, the question and the markup of the turns."""
    scene = Scene(num_screens=3, screen=(112, 168), num_frames=4, frame=(56, 84))
    result = measure(build_model(TINY), build_processor(TINY), scene, num_rounds=1)
    assert tuple(result) == EVENTS
    tokens = {event: figures["tokens_computed"] for event, figures in result.items()}
    assert tokens["slide"] == tokens["reorder"] + 26
    assert tokens["reorder"] == tokens["recall_memory"] == tokens["recall_disk"]
    assert all(figures["tokens_full"] > 3 * 26 + 4 * 8 for figures in result.values())
    assert all(figures["ours_ms"] > 0 < figures["full_ms"] for figures in result.values())


def test_the_order_of_the_ways_changes_from_round_to_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """In four rounds, each baseline comes before the other twice, and before and after ours twice."""
    order: list[str] = []

    def note(owner: type, name: str) -> None:
        method = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: (order.append(name), method(*args, **kwargs))[1])

    for name in ("_full_ms", "_prefix_ms"):
        note(Baselines, name)
    note(Session, "measure")
    scene = Scene(num_screens=2, screen=(56, 84), num_frames=1, frame=(56, 84))
    measure(build_model(TINY), build_processor(TINY), scene, num_rounds=3)
    rounds = [order[index : index + 6] for index in range(0, 24, 6)]
    assert sorted(some.index("_full_ms") < some.index("_prefix_ms") for some in rounds) == [False, False, True, True]
    assert sorted(some.index("_full_ms") < some.index("measure") for some in rounds) == [False, False, True, True]


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
