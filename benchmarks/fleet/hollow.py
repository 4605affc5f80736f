"""The runtime without its work: an engine that computes nothing, and a library whose records only say their size.

Planner, assembly, library and stores are the real ones. So what a turn keeps, moves, recalls, refreshes and computes,
and what a store evicts, is what they decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from kamera_agent.chunk import Record
from kamera_agent.config import Settings
from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.engine import Engine, Partial, Placed, Prefilled, StaleSpan
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.recurrence import Trace
from kamera_agent.runtime.refresh import Refreshed, stages
from kamera_agent.store.base import Store
from kamera_agent.window.library import Library


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


class HollowLibrary(Library):
    """Has the store keep records that say they are as large as those of another model.

    base_bytes: of a base, from the number of its tokens. patch_share: bytes of a patch over those of its base.
    """

    def __init__(
        self, engine: Engine, store: Store, settings: Settings, base_bytes: Callable[[int], int], patch_share: float
    ) -> None:
        super().__init__(engine, store, settings)
        self._base_bytes, self._patch_share = base_bytes, patch_share

    def _put(self, records: Sequence[Record]) -> int:
        return super()._put([self._sized(record) for record in records])

    def _sized(self, record: Record) -> Record:
        if record.header.kind == "base":
            num_bytes = self._base_bytes(record.layers[0][0].shape[-2])
        else:
            num_bytes = int(self._patch_share * self._base_bytes(len(record.layers[0][0])))
        return replace(record, header=replace(record.header, num_bytes=num_bytes))
