"""The linker: brings KV into the pool of an engine of SGLang, and takes KV out of it.

SGLang makes it in its scheduler, and asks it about every prompt that its own cache does not hold to the end. It names
pages by hashes; a hash covers all tokens up to the end of its page, and the salt that keeps requests apart.

A request with an order is one of SglangKamera's: the linker gives the KV that the order brings, and delivers what it
wants. Of all other requests it keeps the pages in the store, and finds them there.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from sglang.srt.mem_cache.hicache_storage import PoolName, PoolTransfer
from sglang.srt.mem_cache.unified_cache.unified_cache_linker import LayerWiseLoadCounter, UnifiedCacheLinker

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError
from kamera_agent.store.opening import open_store
from kamera_sglang.checkpoint import digest_of
from kamera_sglang.mailbox import Mailbox, Order
from kamera_sglang.pool import EnginePool
from kamera_sglang.rows import Row, cut, joined
from kamera_sglang.runs import Runs
from kamera_sglang.taking import Taking

# Requests whose KV is held between their lookup and their load. One that waits longer is computed.
MAX_HELD = 64
# Pages that were looked up and are not stored, and may be computed now; beyond that, the oldest are forgotten.
MAX_AWAITED = 1 << 20
# A folder without orders.
NOWHERE = os.devnull

_log = logging.getLogger("kamera_sglang")


class _Held(NamedTuple):
    """The pages at a prompt's end, and the KV of the first of them."""

    hashes: Sequence[str]
    rows: Sequence[Row]


class _Queued(NamedTuple):
    """KV that the next pass needs, and the pages that it is for."""

    rows: Sequence[Row]
    transfer: PoolTransfer


class KameraLinker(UnifiedCacheLinker):
    """See UnifiedCacheLinker.

    extra_config: "store", a list of folders and URLs; "encryption_key" of an encrypted store, as of linker_options();
        "mailbox", the folder of orders. The last two may be left out.

    All that it gives is verified when it is looked up: the engine gives up a request whose load fails.

    Raises SettingError and UnsupportedModelError where the engine cannot use it.
    """

    def __init__(
        self, server_args: Any, params: Any, *, components: Any, extra_config: dict[str, Any], forward_stream: Any
    ) -> None:
        if (num_ranks := server_args.tp_size * server_args.pp_size) > 1:
            raise SettingError(
                f"The engine is split over {num_ranks} ranks, each with a part of the heads or layers, and a chunk has "
                "all of them. Start it with tp_size=1 and pp_size=1."
            )
        kvcache = params.token_to_kv_pool_allocator.get_kvcache()
        self._pool = EnginePool(kvcache)
        self._page_size: int = params.page_size
        self._mailbox = Mailbox(extra_config.get("mailbox") or NOWHERE)
        self._taking = Taking(self._mailbox)
        facts = {
            "checkpoint": digest_of(server_args.model_path, server_args.revision),
            "kv": [self._pool.num_layers, *self._pool.heads, str(self._pool.dtype)],
            "quantization": server_args.quantization,
            "overrides": server_args.json_model_override_args,
        }
        self._store = open_store(extra_config["store"], Settings(encryption_key=extra_config.get("encryption_key")))
        self._runs = Runs(self._store, self._page_size, facts)
        self._awaited = OrderedDict[str, None]()
        self._held = OrderedDict[str, _Held]()
        self._queued: dict[str, _Queued] = {}
        self._num_offloaded = 0
        self.pools = {PoolName.KV: kvcache}
        self.forward_stream = forward_stream
        self.layer_done_counter = LayerWiseLoadCounter(self._pool.num_layers)

    def lookup(self, rid: str, transfers: list[PoolTransfer]) -> list[int]:
        """The numbers of pages that can be restored: all up to the first page that cannot."""
        hashes: list[str] = list(_of_kv(transfers).keys)
        held = self._held.get(rid)
        # A request that waits for its turn is looked up again and again.
        if held is None or held.hashes != hashes:
            held = self._held[rid] = _Held(hashes, self._find(rid, hashes))
            _trim(self._held, MAX_HELD)
        return [*range(1, len(held.rows) + 1)]

    def load(self, rid: str, transfers: list[PoolTransfer]) -> bool:
        if (held := self._held.pop(rid, None)) is None:
            return False
        # Lookups that come before the pass may push out what is held, but nothing of this.
        self._queued[rid] = _Queued(held.rows, _of_kv(transfers))
        return True

    def start_layer_wise_loading(self) -> int:
        if not self._queued:
            return -1
        index = self.layer_done_counter.update_producer()
        while self._queued:
            _, (rows, transfer) = self._queued.popitem()
            self._write(rows[: len(transfer.keys)], transfer.device_indices)
        for layer in range(self._pool.num_layers):
            self.layer_done_counter.complete(index, layer)
        return index

    def finish_layer_wise_loading(self, counter_index: int) -> bool:
        return self.layer_done_counter.finish(counter_index)

    def cancel_queued_load(self, rid: str) -> bool:
        return self._queued.pop(rid, None) is not None

    def offload(self, transfers: list[PoolTransfer], session_id: str | None = None) -> bool:
        """Take from pages that were computed what an order wants, and what the store should have."""
        transfer = _of_kv(transfers)
        hashes: list[str] = list(transfer.keys)
        awaited = [name in self._awaited for name in hashes]
        if any(awaited) or self._taking.wants(hashes):
            layers = self._pool.read(transfer.device_indices)
            self._taking.take(hashes, layers)
            for is_awaited, group in groupby(range(len(hashes)), awaited.__getitem__):
                numbers = [*group]
                if is_awaited:
                    first, stop = numbers[0], numbers[-1] + 1
                    tokens = slice(first * self._page_size, stop * self._page_size)
                    self._runs.keep(hashes[first:stop], [cut(layer, tokens) for layer in layers])
                    for name in hashes[first:stop]:
                        del self._awaited[name]
        self._num_offloaded += 1
        return True

    def num_completed_offloads(self) -> int:
        return self._num_offloaded

    def pop_completed_offload(self) -> bool:
        self._num_offloaded -= 1
        return True

    def reset(self) -> None:
        self._held.clear()
        self._queued.clear()
        self._num_offloaded = 0
        self.layer_done_counter.reset()

    def close(self) -> None:
        self._store.close()

    def _find(self, rid: str, hashes: Sequence[str]) -> list[Row]:
        """The KV of the first pages at a prompt's end, by an order or from the store."""
        if order := self._mailbox.order(rid):
            return self._ordered(rid, order, hashes)
        rows = self._runs.find(hashes)
        self._await(hashes[len(rows) :])
        return rows

    def _ordered(self, rid: str, order: Order, hashes: Sequence[str]) -> list[Row]:
        """The KV that an order gives of the pages at a prompt's end; notes what it wants of them."""
        if self._page_size != 1:
            _log.warning("An order has no effect with page_size=%d: an image begins within a page.", self._page_size)
            return []
        # The last token of a prompt is always computed, and has no page here.
        start = order.num_tokens - 1 - len(hashes)
        for tokens in order.wanted:
            if computed := tokens[max(0, start - tokens.start) :]:
                self._taking.want(rid, computed, hashes[computed.start - start : computed.stop - start])
        rows: list[Row] = []
        for pages in order.given:
            if pages.start <= start + len(rows) < pages.stop:
                first = start + len(rows) - pages.start
                rows += [Row(pages.layers, slice(n, n + 1)) for n in range(first, pages.stop - pages.start)]
        return rows

    def _await(self, hashes: Sequence[str]) -> None:
        """Have these pages stored when they are computed. Those of orders never are: their KV may be approximate."""
        self._awaited |= dict.fromkeys(hashes)
        _trim(self._awaited, MAX_AWAITED)

    def _write(self, rows: Sequence[Row], slots: torch.Tensor) -> None:
        """Write the KV of pages into their slots."""
        runs = [[*group] for _, group in groupby(rows, lambda row: id(row.layers))]
        indices = [torch.cat([torch.arange(row.tokens.start, row.tokens.stop) for row in run]) for run in runs]
        for layer in range(self._pool.num_layers):
            parts = [cut(run[0].layers[layer], index) for run, index in zip(runs, indices, strict=True)]
            self._pool.write(layer, slots, joined(parts))
        self._pool.synchronize()


def _of_kv(transfers: Sequence[PoolTransfer]) -> PoolTransfer:
    return next(transfer for transfer in transfers if transfer.name == PoolName.KV)


def _trim(entries: OrderedDict[str, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
