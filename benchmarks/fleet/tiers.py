"""Tiers of stores: how much each holds, how fast it is, what it costs, and what it has served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from benchmarks.fleet.hollow import HollowStore, Size
from kamera_agent.store.base import Store
from kamera_agent.store.tiered import TieredStore

GB = 10**9


@dataclass(frozen=True, slots=True)
class Tier:
    """A tier as it is simulated.

    cap_bytes: what it holds. bandwidth: bytes per second that one machine gets from it. latency_s: of a round trip.
    shared: whether all machines of a fleet have it in common. dollars: per GB and month.
    """

    name: str
    cap_bytes: int
    bandwidth: float
    latency_s: float = 0.0
    shared: bool = False
    dollars: float = 0.0

    def open(self, size: Size) -> Store:
        """An empty store. It evicts in order of last use, as a folder and a Redis with allkeys-lru do.

        size: of what is put into it.
        """
        return HollowStore(self.cap_bytes, size)


@dataclass(frozen=True, slots=True)
class Served:
    """What tiers have served, the fastest first: records, and their bytes."""

    hits: tuple[int, ...]
    num_bytes: tuple[int, ...]

    def since(self, before: Served) -> Served:
        """What was served after an earlier state."""
        return Served(
            tuple(now - then for now, then in zip(self.hits, before.hits, strict=True)),
            tuple(now - then for now, then in zip(self.num_bytes, before.num_bytes, strict=True)),
        )


def tiered(stores: Sequence[Store]) -> Store:
    """Stores as one, the fastest first."""
    return reduce(lambda lower, upper: TieredStore(upper, lower), reversed(stores))


def served(stores: Sequence[Store]) -> Served:
    """What stores have served by now."""
    stats = [store.stats() for store in stores]
    return Served(tuple(each.hits for each in stats), tuple(each.bytes_read for each in stats))
