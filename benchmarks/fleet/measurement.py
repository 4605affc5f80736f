"""One machine, measured and simulated: the same agents over the same screens, with stores of the same sizes.

Measured, the pocket model computes, and an LMDB store on a disk is below a memory tier. Simulated, nothing is computed.
So few chunks fit into either tier that both evict.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.fleet.agent import RealAgent
from benchmarks.fleet.clock import Clock
from benchmarks.fleet.hollow import HollowEngine, HollowStore, Size
from benchmarks.fleet.pages import draw
from benchmarks.fleet.population import Population, Window
from benchmarks.fleet.simulation import Fleet, Machine, Turn
from benchmarks.fleet.tiers import tiered
from kamera_agent import Kamera, Reply
from kamera_agent.config import OnStale, Settings
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.window.plan import Plan

# Chunks that fit into memory and onto the disk.
FIT = 4.5, 12.5
TIERS = "memory", "disk"
# Turns after which the machine is timed again.
TIMED_EVERY = 2
# A session before all others: what a Kamera does for the first time takes longer.
WARM_UP = [("any",)]


def compare(fleet: Fleet, population: Population, stale: OnStale) -> dict[str, Any]:
    """Sums over the turns of the agents of one machine, measured and simulated, and their ratios.

    alike: share of the turns in which every screen had the same origin. stale: what becomes of stale chunks.
    """
    settings = Settings(heal="never", stale=stale)
    with Kamera.pocket(heal="never") as kamera:
        family = kamera.family
        num_tokens = len(family.image_chunk(draw("any"), settings.namespace).token_ids)
        size = Size(num_tokens, family.decoder.chunk_bytes(num_tokens))
        caps = [int(fit * size.num_bytes) for fit in FIT]
        clock = Clock(kamera, num_tokens)
        replies, measured = _measure(fleet, population, stale, caps, clock)
    engine, stores = HollowEngine(family, len(family.decoder.kinds)), [HollowStore(cap, size) for cap in caps]
    machine = Machine(engine, stores, size, settings)
    list(machine.session(WARM_UP))
    turns = list(fleet.take_turns(fleet.agents(machine.session, population)))
    simulated = _sums([turn.plan for turn in turns], machine.stores)
    measured["first_token_ms"] = sum(reply.timings.first_token_ms for reply in replies)
    simulated["first_token_ms"] = sum(map(clock.ms, turns, _num_encoded(turns)))
    same = [_origins(reply.plan) == turn.origins for reply, turn in zip(replies, turns, strict=True)]
    return {
        "measured": {name: round(value) for name, value in measured.items()},
        "simulated": {name: round(value) for name, value in simulated.items()},
        "ratio": {name: round(simulated[name] / value, 3) for name, value in measured.items() if value},
        "alike": round(statistics.mean(same), 3),
        "turns": len(turns),
    }


def _measure(
    fleet: Fleet, population: Population, stale: OnStale, caps: Sequence[int], clock: Clock
) -> tuple[list[Reply], dict[str, float]]:
    with TemporaryDirectory() as folder:
        stores = [MemoryStore(caps[0]), LmdbStore(folder, caps[1])]
        with tiered(stores) as store, Kamera.pocket(store, heal="never", stale=stale) as kamera:

            def session(windows: Sequence[Window]) -> Iterator[Reply]:
                return map(RealAgent(kamera, draw).ask, windows)

            list(session(WARM_UP))
            replies = list[Reply]()
            for reply in fleet.take_turns(fleet.agents(session, population)):
                replies.append(reply)
                if len(replies) % TIMED_EVERY == 0:
                    clock.sample()
            return replies, _sums([reply.plan for reply in replies], stores)


def _sums(plans: Sequence[Plan], stores: Sequence[Store]) -> dict[str, float]:
    """The background work is in what the tiers read."""
    origins = Counter(origin for plan in plans for origin in _origins(plan))
    sums: dict[str, float] = {
        "tokens_computed": sum(plan.num_computed for plan in plans),
        "tokens_recalled": sum(plan.num_tokens("recalled") for plan in plans),
        **{f"screens_{origin}": origins[origin] for origin in ("computed", "recalled", "moved", "kept")},
    }
    for name, stats in zip(TIERS, (store.stats() for store in stores), strict=True):
        sums |= {
            f"{name}_hits": stats.hits,
            f"{name}_bytes_read": stats.bytes_read,
            f"{name}_evictions": stats.evictions,
        }
    return sums


def _origins(plan: Plan) -> list[str]:
    return [row.origin for row in plan.rows if row.kind == "image"]


def _num_encoded(turns: Iterable[Turn]) -> Iterator[int]:
    """Of each turn, the screens that the encoder sees for the first time. Its cache holds all that come again."""
    seen = set[str]()
    for turn in turns:
        before = len(seen)
        computed = zip(turn.screens, turn.origins, strict=True)
        seen |= {screen for screen, origin in computed if origin == "computed"}
        yield len(seen) - before
