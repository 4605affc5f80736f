"""The runtime without its work: an engine that computes nothing, and records that only say their size.

Planner, assembly, library and stores are the real ones. So what a turn keeps, moves, recalls, refreshes and computes,
and what a store evicts, is what they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from kamera_agent.chunk import Record
from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.engine import Engine, Partial, Placed, Prefilled, StaleSpan
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.recurrence import Trace
from kamera_agent.runtime.refresh import Refreshed, stages
from kamera_agent.store.memory import MemoryStore


def refreshed_share(num_layers: int) -> float:
    """The share of the KV of a stale span, in tokens times layers, that a refresh computes of it in part."""
    (first, more), (second, fewer) = stages(num_layers).items()
    return (first + more * (second - first) + fewer * (num_layers - second)) / num_layers


class HollowEngine(Engine):
    """Enters places in a pool, and computes nothing. The KV of a token is two zeros.

    num_layers: of the model that it stands for. A refresh computes as much of a stale span as it does in a model of so
    many layers, where no span is computed whole.
    """

    def __init__(self, family: Family, num_layers: int) -> None:
        super().__init__(family, encoder_cache_bytes=0)
        self._share = refreshed_share(num_layers)

    def new_pool(self) -> KVPool:
        shape = self.family.decoder.shapes[0]
        return KVPool([shape._replace(layers=shape.layers[:1], keys=Heads(1, 1), values=Heads(1, 1))])

    def relocate(self, pool: KVPool, spans: Sequence[Placed], num_positions: int = 0) -> None:
        for placed in spans:
            self.place(pool, placed)

    def load(
        self,
        pool: KVPool,
        placed: Placed,
        base: Sequence[LayerKV],
        factors: Sequence[Factors] | None,
        trace: Trace | None = None,
    ) -> None:
        self.place(pool, placed)

    def prefill(
        self,
        pool: KVPool,
        batch: Sequence[Placed],
        tick: Callable[[], None] = lambda: None,
        stale: Sequence[StaleSpan] = (),
        partial: Sequence[Partial] = (),
    ) -> Prefilled:
        for placed in (*(span.placed for span in stale), *batch):
            self.place(pool, placed)
        return Prefilled(torch.zeros(1), 0, [self._refreshed(span.placed) for span in stale])

    def _refreshed(self, placed: Placed) -> Refreshed:
        depth = self._share * len(self.family.decoder.kinds)
        return Refreshed(torch.zeros(0), torch.full((len(placed.run.token_ids),), depth))


@dataclass(frozen=True, slots=True)
class Size:
    """Of the chunk of a screen: tokens and bytes. patch_share: bytes of a patch over those of its base.

    With rank="auto", a patch may take up to 0.25.
    """

    num_tokens: int
    num_bytes: int
    patch_share: float = 0.12

    def sized(self, record: Record) -> Record:
        """A hollow record that says it is as large as one with KV."""
        # The first tensor of a base is K [1, T, 1], that of a patch U [T, r].
        num_tokens = record.layers[0][0].shape[-2]
        share = 1.0 if record.header.kind == "base" else self.patch_share
        num_bytes = round(share * self.num_bytes * num_tokens / self.num_tokens)
        return replace(record, header=replace(record.header, num_bytes=num_bytes))


class HollowStore(MemoryStore):
    """Keeps hollow records, and counts them as what they stand for."""

    def __init__(self, cap_bytes: int, size: Size) -> None:
        super().__init__(cap_bytes)
        self._size = size

    def put_many(self, records: Iterable[Record]) -> None:
        super().put_many(map(self._size.sized, records))
