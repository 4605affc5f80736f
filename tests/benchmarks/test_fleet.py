"""The simulated fleet against the real runtime, and its figures against those counted by hand."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import benchmarks.fleet.__main__ as program
from benchmarks.backbones.sizes import kept_bytes
from benchmarks.fleet.assumptions import MONTH_S, STEP_S, Gpu
from benchmarks.fleet.figures import loading_s, summary, tier_dollars
from benchmarks.fleet.hollow import HollowEngine, Size
from benchmarks.fleet.measurement import compare
from benchmarks.fleet.payoff import compute_s, least_bandwidth, load_s
from benchmarks.fleet.population import Population, Window
from benchmarks.fleet.simulation import Fleet, Machine, Turn
from benchmarks.fleet.tiers import GB, Tier
from benchmarks.fleet.traces import numbered, recorded
from kamera_agent import Kamera
from kamera_agent.config import Settings
from kamera_agent.store.base import Store

SIZE = Size(num_tokens=100, num_bytes=10**6)
SETTINGS = Settings(heal="never", stale="keep")
# The anchor, the system prompt and what opens the user's turn; the question and what opens the assistant's.
HEAD, TAIL = 14, 8
GPU = Gpu("none", 1e12, 0.4, dollars=3.6)


@pytest.fixture(scope="module")
def engine() -> HollowEngine:
    with Kamera.pocket() as kamera:
        return HollowEngine(kamera.family, num_layers=36)


def tier(name: str, num_chunks: float, **facts: Any) -> Tier:
    return Tier(name, int(num_chunks * SIZE.num_bytes), **{"bandwidth": GB, **facts})


def play(
    engine: HollowEngine, stores: Sequence[Store], windows: Sequence[str], settings: Settings = SETTINGS
) -> list[Turn]:
    """A session over windows of screens, each named by a letter."""
    return list(Machine(engine, stores, SIZE, settings).session([tuple(window) for window in windows]))


@pytest.mark.parametrize("stale", ["keep", "refresh"])
def test_one_machine_takes_what_the_real_one_takes(stale: Any) -> None:
    """1. Two agents over the pocket model, memory and LMDB. 2. The same without the model. Both tiers evict."""
    population = Population([recorded()["demo"]], num_applications=2, session_len=8)
    result = compare(Fleet(1, 2, 10), population, stale)
    measured, simulated = result["measured"], result["simulated"]
    assert min(measured[f"{tier}_{count}"] for tier in ("memory", "disk") for count in ("hits", "evictions")) > 0
    for name in measured:
        if not name.endswith("ms"):
            assert simulated[name] == pytest.approx(measured[name], rel=0.15), name
    # How much of a span is computed again, the pocket model says; all else follows from what the stores have.
    if stale == "keep":
        counted = [name for name in measured if name.startswith("screens") or name.endswith("hits")]
        assert {name: simulated[name] for name in counted} == {name: measured[name] for name in counted}
        assert result["alike"] == 1


def test_tokens_counted_by_hand(engine: HollowEngine) -> None:
    """A prefix cache has the windows of the session; ours has what is in the pool, and a page that came back before."""
    turns = play(engine, [tier("memory", 100).open(SIZE)], ["a", "ab", "abc", "bcd", "abcd", "cda"])
    assert [turn.plan.num_tokens() for turn in turns] == [HEAD + n * 100 + TAIL for n in (1, 2, 3, 3, 4, 3)]
    assert [turn.num_prefix for turn in turns] == [HEAD + 100 + TAIL, *(n * 100 + TAIL for n in (1, 1, 3, 1, 3))]
    assert [turn.plan.num_computed for turn in turns] == [HEAD + 100 + TAIL, *(n * 100 + TAIL for n in (1, 1, 1, 0, 0))]


def test_a_refresh_takes_the_share_that_it_takes_in_so_many_layers(engine: HollowEngine) -> None:
    """Of 36 layers: five with all tokens, nine with twice as many as the others; 0.35 in all, rounded down."""
    *_, last = play(engine, [tier("memory", 100).open(SIZE)], ["ab", "b"], Settings(heal="never"))
    assert last.plan.num_computed == 35 + TAIL


def test_machines_share_what_a_shared_tier_keeps(engine: HollowEngine) -> None:
    """What the first machine computed, the second one reads from the shared tier, and then from its own memory."""
    shared = tier("shared", 100).open(SIZE)
    stores = [[tier("memory", 1.5).open(SIZE), shared] for _ in range(2)]
    assert [turn.origins for turn in play(engine, stores[0], ["a"])] == [["computed"]]
    first, again = (turn for _ in range(2) for turn in play(engine, stores[1], ["a"]))
    assert (first.origins, first.served.hits, first.served.num_bytes) == (["recalled"], (0, 1), (0, SIZE.num_bytes))
    assert (again.origins, again.served.hits, again.served.num_bytes) == (["recalled"], (1, 0), (SIZE.num_bytes, 0))


def test_a_full_tier_forgets_what_was_used_longest_ago(engine: HollowEngine) -> None:
    stores = [tier("memory", 2.5).open(SIZE)]
    for screen in "abac":
        play(engine, stores, [screen])
    origins = {screen: play(engine, stores, [screen])[0].origins[0] for screen in "acb"}
    assert origins == {"a": "recalled", "c": "recalled", "b": "computed"}


class TestPopulation:
    TRACES = numbered(["a", "ab", "abc", "bcd", "acd", "cda"]), [(0,), (0, 1), (1, 2)]

    def sessions(self, private: float, seed: int = 0) -> list[list[Window]]:
        population = Population(self.TRACES, 2, private=private, session_len=2)
        sessions = population.sessions(random.Random(seed))
        return [next(sessions) for _ in range(40)]

    def test_a_seed_gives_its_sessions(self) -> None:
        assert self.sessions(0.5) == self.sessions(0.5) != self.sessions(0.5, seed=1)

    def test_windows_are_those_of_the_traces_without_what_was_seen_before(self) -> None:
        found = {tuple(session) for session in self.sessions(0.0) if session[0][0].startswith("app1")}
        assert found == {(("app1.0",), ("app1.0", "app1.1")), (("app1.1",), ("app1.1", "app1.2"))}

    @pytest.mark.parametrize(("private", "num_common"), [(0.0, 7), (1.0, 0)])
    def test_private_screens_are_seen_in_one_session(self, private: float, num_common: int) -> None:
        screens = [{screen for window in session for screen in window} for session in self.sessions(private)]
        common = {screen for one in screens for screen in one if sum(screen in other for other in screens) > 1}
        assert len(common) == num_common

    def test_the_working_set(self) -> None:
        assert Population(self.TRACES, 10, private=0.2).num_shared == pytest.approx(0.8 * 10 * (4 + 3) / 2)


class TestFigures:
    TIERS = (
        tier("memory", 4, dollars=2.0),
        tier("far", 1000, latency_s=0.1, shared=True, bandwidth=GB / 2, dollars=1.0),
    )

    def test_seconds_of_a_turn(self, engine: HollowEngine) -> None:
        """Two round trips for what a turn asks, a third one for what it reads, and the bytes."""
        stores = [each.open(SIZE) for each in self.TIERS]
        asked, kept = play(engine, stores, ["a", "a"])
        (read,) = play(engine, [self.TIERS[0].open(SIZE), stores[1]], ["a"])
        assert [loading_s(turn, self.TIERS) for turn in (asked, kept, read)] == [0.2, 0, pytest.approx(0.3 + 2e6 / GB)]

    def test_dollars_of_the_tiers(self) -> None:
        months = 1e6 / 6 * STEP_S / MONTH_S
        assert tier_dollars(Fleet(2, 3, 1), self.TIERS) == pytest.approx(months * (2 * 0.004 * 2.0 + 1.0))

    def test_shares_and_dollars_of_the_gpu(self, engine: HollowEngine) -> None:
        """Of two turns, the first one is not counted; the second computes a screen and reads one."""
        stores = [each.open(SIZE) for each in self.TIERS]
        turns = [*play(engine, stores, ["a"]), *play(engine, stores, ["ab"])]
        figures = summary(turns, Fleet(1, 1, 2), self.TIERS, [GPU], token_flops=1e9)
        assert (figures["hit"], figures["new"], figures["other"]) == (0.5, 0.5, 0.0)
        assert figures["tokens_per_step"] == {"ours": HEAD + 100 + TAIL, **dict.fromkeys(("prefix", "full"), 222)}
        on = figures["gpus"]["none"]
        assert on["gpu_dollars"]["full"] == round(1e6 * 222 / 400 * 0.001, 1)
        assert on["first_token_ms"]["prefix"] == round(1e3 * 222 / 400, 1)
        assert on["first_token_ms"]["ours"] == round(1e3 * 122 / 400 + figures["loading_ms"], 1)
        assert figures["read_mb_per_step"] == {"memory": 1.0, "far": 0.0}


def test_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From its arguments to its picture and its JSON, without the measurement. Here, more tiers compute less."""
    picture = tmp_path / "fleet.png"
    monkeypatch.setattr(program, "NUM_APPLICATIONS", (1, 2))
    monkeypatch.setattr(program, "NUM_MACHINES", 1)
    monkeypatch.setattr(program, "compare", lambda *args: {})
    monkeypatch.setattr(sys, "argv", ["fleet", "--json", "--steps", "12", "--plot", str(picture)])
    program.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert result["points"][1]["working_set_gb"] == pytest.approx(2 * result["points"][0]["working_set_gb"], abs=0.1)
    for point in result["points"]:
        computed = [figures["tokens_per_step"]["ours"] for figures in point["stacks"].values()]
        assert computed == sorted(computed, reverse=True)
        assert computed[0] > computed[-1]
        assert all(f["hit"] + f["new"] + f["other"] == pytest.approx(1, abs=0.002) for f in point["stacks"].values())


def test_loading_pays_above_the_bandwidth_that_is_said() -> None:
    model = "Qwen3-VL-8B"
    bandwidth = least_bandwidth(GPU, model)
    assert load_s(Tier("t", 0, bandwidth), kept_bytes(model)) == pytest.approx(compute_s(GPU, model))
    assert compute_s(GPU, model) == pytest.approx(1000 * 13.9e9 / (0.4 * 1e12), rel=0.01)
    assert GPU.tokens_per_s(1e9) == pytest.approx(400)
