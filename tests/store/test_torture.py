"""A cut of `make torture`: what a store must survive, in seconds. benchmarks/torture says what each part does."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest

from benchmarks.torture import answers, calls, crowd, damage, faults, kills, power, strangers
from benchmarks.torture.figures import MUST_BE_0, Figures
from benchmarks.torture.fuzz import mutation
from benchmarks.torture.fuzz.entries import ENTRIES
from benchmarks.torture.fuzz.judge import Judge

needs_calls = pytest.mark.skipif(not calls.is_possible(), reason="needs Linux and a C compiler")


def failures(figures: Figures) -> dict[str, int]:
    return {name: figures[name] for name in MUST_BE_0 if figures[name]}


def test_kills() -> None:
    figures = kills.run(40, seed=0)
    assert failures(figures) == {}
    # Of the five phases, "write" never ends by itself.
    assert figures["in_time"] >= 40 // 5


@needs_calls
def test_power_cuts() -> None:
    figures = power.run(40, seed=0)
    assert failures(figures) == {}
    assert figures["settled"] > 100


def test_damage() -> None:
    figures = damage.run(160, seed=0)
    assert failures(figures) == {}
    assert (figures["mutations"], figures["hidden"]) == (168, 8)


@needs_calls
@pytest.mark.parametrize(("module", "count"), [(faults, 100), (answers, 8)], ids=["store", "answers"])
def test_faults(module: object, count: int) -> None:
    figures = faults.run(module.__name__, count, seed=0)
    assert failures(figures) == {}
    assert figures["faults"] == count


@pytest.mark.parametrize("name", ["header", "archive", "reply", "trace", "blocks", "image"])
def test_hostile_input(tmp_path: Path, name: str) -> None:
    """Seeded changes of valid inputs. How long each takes is left to `make fuzz`."""
    entry, judge = ENTRIES[name], Judge(ENTRIES[name], tmp_path / "figures")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mutation.run(judge, entry.seeds(), 2.0, seed=0)
    assert judge.figures["fuzz_inputs"] > 20
    assert (judge.figures["fuzz_foreign"], judge.figures["fuzz_large"]) == (0, 0)


def test_the_test_of_times_tells_samples_apart() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.exponential(size=(2, 2000))
    assert 0.001 < strangers.rank_test(left, right) < 1
    assert strangers.rank_test(left, right * 1.3) < 1e-6
    # By hand: of the six orders of two and two, U is 0 in one, and its normal deviation sqrt(5 / 3).
    assert strangers.rank_test([1, 2], [3, 4]) == pytest.approx(math.erfc(2 / math.sqrt(5 / 3) / math.sqrt(2)))


def test_crowd() -> None:
    figures = crowd.run(10, seed=0, num_processes=3, num_threads=2)
    assert failures(figures) == {}
    assert figures["load_records"] > 0
