"""The beginning of an expected window, computed exactly beside the present one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.window.layout import Place
from kamera_agent.window.resident import Resident, num_common

# Tokens of text after which a slice ends. It also ends with its first chunk.
SLICE_TOKENS = 512

Tick = Callable[[], None]


class Ahead:
    """The KV of the first items of an expected window, in a pool of its own, which does not grow.

    residents: of these items, in order; all are exact and in their places. An interrupted slice leaves slots without an
        owner, which the next one frees.
    """

    def __init__(self, pool: KVPool, residents: Sequence[Resident], num_tokens: int) -> None:
        """Copy residents out of a pool; there is room for num_tokens tokens in all."""
        self.pool = pool.empty()
        self.pool.reserve(num_tokens)
        slots = self.pool.take(pool, [resident.slots for resident in residents])
        self.residents = [replace(old, slots=new) for old, new in zip(residents, slots, strict=True)]

    def compute(self, engine: Engine, places: Sequence[Place], tick: Tick) -> list[Resident]:
        """Compute what is next in these places; returns their residents, none where all are computed."""
        self.residents = self.residents[: num_common(places, self.residents)]
        self.pool.reclaim([resident.slots for resident in self.residents])
        new = compute(engine, self.pool, slice_of(places[len(self.residents) :]), tick)
        self.residents = [*self.residents, *new]
        return new


def slice_of(places: Sequence[Place]) -> list[Place]:
    """The first places, up to a chunk or SLICE_TOKENS tokens of text."""
    first: list[Place] = []
    num_tokens = 0
    for place in places:
        if num_tokens >= SLICE_TOKENS or (first and isinstance(first[-1].item.run, Chunk)):
            break
        first.append(place)
        num_tokens += len(place.item.run.token_ids)
    return first


def compute(engine: Engine, pool: KVPool, places: Sequence[Place], tick: Tick) -> list[Resident]:
    """Compute what follows exact KV in one forward pass, into new slots."""
    residents = [
        Resident(place, pool.allocate(len(place.item.run.token_ids)), place.before, "computed", exact=True)
        for place in places
    ]
    if residents:
        engine.prefill(pool, [resident.placed for resident in residents], tick)
    return residents
