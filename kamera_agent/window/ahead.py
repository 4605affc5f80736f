"""The beginning of an expected window, computed exactly beside the present one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.window.layout import Item
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
        self.pool = KVPool(pool.shape)
        self.pool.reserve(num_tokens)
        slots = self.pool.take(pool, [resident.slots for resident in residents])
        self.residents = [replace(old, slots=new) for old, new in zip(residents, slots, strict=True)]

    def compute(self, engine: Engine, items: Sequence[Item], tick: Tick) -> list[Resident]:
        """Compute the next of these items; returns their residents, none where all are computed."""
        self.residents = self.residents[: num_common(items, self.residents)]
        self.pool.reclaim([resident.slots for resident in self.residents])
        new = compute(engine, self.pool, self.residents[-1], slice_of(items[len(self.residents) :]), tick)
        self.residents = [*self.residents, *new]
        return new


def slice_of(items: Sequence[Item]) -> list[Item]:
    """The first items, up to a chunk or SLICE_TOKENS tokens of text."""
    first: list[Item] = []
    num_tokens = 0
    for item in items:
        if num_tokens >= SLICE_TOKENS or (first and isinstance(first[-1].run, Chunk)):
            break
        first.append(item)
        num_tokens += len(item.run.token_ids)
    return first


def compute(engine: Engine, pool: KVPool, before: Resident, items: Sequence[Item], tick: Tick) -> list[Resident]:
    """Compute items that follow a resident in one forward pass, into new slots."""
    residents: list[Resident] = []
    for item in items:
        before = before.then(item, pool.allocate(len(item.run.token_ids)))
        residents.append(before)
    if residents:
        engine.prefill(pool, [resident.placed for resident in residents], tick)
    return residents
