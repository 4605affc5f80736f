"""The half of the connector that is with vLLM's worker: it fills pages from the store, and reads pages for it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch

from kamera_agent.chunk import Key
from kamera_agent.config import Settings
from kamera_agent.pages.page import page_layers, page_record
from kamera_agent.pages.span import Save
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.store.base import Store
from kamera_agent.trouble import Trouble
from kamera_agent.window.records import Computed, Records
from kamera_agent.window.worker import Job
from kamera_agent.window.worker import Worker as Thread
from kamera_vllm.orders import Filling, Keeping, Order, Probe
from kamera_vllm.pages import Pages

_log = logging.getLogger("kamera_vllm")
# Windows whose tails are kept: those that are being computed, with some that nobody goes on with.
NUM_TAILS = 256


class _Tail(NamedTuple):
    """KV of the last tokens of a request, which do not fill a block. K after RoPE, per layer. first: their first."""

    first: int
    layers: list[LayerKV]


class Worker:
    """Fills and reads the pages of one engine.

    pages: of the layers, in order.
    """

    def __init__(
        self, store: Store, settings: Settings, rotation: Rotation, block_size: int, pages: Sequence[Pages]
    ) -> None:
        self._store = store
        self._settings = settings
        self._rotation = rotation
        self._block_size = block_size
        self._pages = pages
        self._records = Records(store, settings, rotation.num_layers, torch.device("cpu"))
        self._thread = Thread("kamera-remember")
        self._tails: OrderedDict[str, _Tail] = OrderedDict()
        self._filled: set[str] = set()
        self._failed: set[int] = set()
        self._unfilled = Trouble(
            _log, "Pages cannot be filled from the store, and are computed", "Pages are filled again"
        )
        self._unread = Trouble(_log, "Computed pages cannot be read, and are not kept", "Computed pages are read again")

    def fill(self, fillings: Iterable[Filling]) -> None:
        """Write KV to pages. filled() and failed() say what became of it."""
        for filling in fillings:
            is_done = False
            with self._unfilled.contained():
                if layers := self._known(filling):
                    for pages, kv in zip(self._pages, layers, strict=True):
                        pages.write(filling.block_ids, filling.tokens, kv)
                    is_done = True
            if not is_done:
                self._failed |= set(self._blocks(filling))
            self._filled.add(filling.request_id)

    def filled(self) -> set[str]:
        """The requests that need not wait any longer, since the last call."""
        filled, self._filled = self._filled, set()
        return filled

    def failed(self) -> set[int]:
        """The blocks that could not be filled, since the last call."""
        failed, self._failed = self._failed, set()
        return failed

    def keep(self, keepings: Iterable[Keeping]) -> None:
        """Copy what requests have computed out of their pages, and have the store keep it."""
        for keeping in keepings:
            with self._unread.contained():
                if keeping.order is None:
                    self._keep_pages(keeping)
                else:
                    self._keep_spans(keeping, keeping.order)

    def close(self) -> None:
        """Hand over what waits."""
        self._thread.drain()

    def _blocks(self, filling: Filling) -> Sequence[int]:
        """The blocks that hold the tokens of a filling."""
        first, last = filling.tokens.start // self._block_size, -(-filling.tokens.stop // self._block_size)
        return filling.block_ids[first:last]

    def _known(self, filling: Filling) -> Iterable[LayerKV] | None:
        """Per layer, K after RoPE and V of the tokens of a filling; None where something is missing."""
        if filling.order is not None:
            return self._known_spans(filling.order, filling.tokens.start)
        found = self._store.get_many(filling.keys)
        if len(found) < len(filling.keys):
            return None
        return [_joined(parts) for parts in zip(*(page_layers(found[key.digest]) for key in filling.keys), strict=True)]

    def _known_spans(self, order: Order, first: int) -> Iterator[LayerKV] | None:
        """The KV of spans in a row, and of the tokens before it that fill no block, from the token `first` on."""
        row, sources = order.claim, list[Iterable[LayerKV]]()
        if first < row.start:
            tail = self._tails.get(order.window)
            if tail is None or tail.first > first:
                return None
            sources.append(tail.layers)
            first -= tail.first
        else:
            first -= row.start
        loaded = self._records.load([load.evidence for load in order.loads])
        for load, found in zip(order.loads, loaded, strict=True):
            if found is None:
                return None
            sources.append(self._rotation.turned(found.base.kv, found.factors, load.positions))
        return _from(first, sources)

    def _keep_spans(self, keeping: Keeping, order: Order) -> None:
        # First, so that no tail is taken for a later one that could not be read.
        self._tails.pop(order.window, None)
        for save in order.saves:
            self._submit(self._read(keeping, range(save.first, save.end)), partial(self._write_down, save))
        end = keeping.num_tokens
        first = end - end % self._block_size
        if order.continues and first < end:
            self._tails[order.window] = _Tail(first, self._read(keeping, range(first, end)))
            if len(self._tails) > NUM_TAILS:
                self._tails.popitem(last=False)
        if probe := order.probe:
            tokens = range(probe.first, probe.first + probe.positions.shape[1])
            self._submit(self._read(keeping, tokens), partial(self._write_probe, probe))

    def _keep_pages(self, keeping: Keeping) -> None:
        size = self._block_size
        for number, key in enumerate(keeping.keys):
            # vLLM offers filled pages again, and pages that its own cache had. Each is written once.
            if not self._store.headers(key.digest):
                layers = self._read(keeping, range(number * size, (number + 1) * size))
                self._submit(layers, partial(self._write_page, key))

    def _read(self, keeping: Keeping, tokens: range) -> list[LayerKV]:
        return [pages.read(keeping.block_ids, tokens) for pages in self._pages]

    def _submit(self, layers: list[LayerKV], write_down: partial[int]) -> None:
        """Have KV stored in the background, unless too much waits."""
        num_bytes = sum(part.nbytes for layer in layers for part in layer[:2])
        if self._thread.has_room(num_bytes, self._settings.memory_bytes):
            self._thread.submit(Job(partial(write_down, layers), num_bytes))

    @torch.no_grad()
    def _write_down(self, save: Save, layers: list[LayerKV]) -> int:
        kept = Kept(tuple(self._rotation.turned_back(layer, save.positions) for layer in layers))
        return self._records.write_down(save.key, Computed(kept, save.seen), _at_once, _no_canonical)

    def _write_probe(self, probe: Probe, layers: list[LayerKV]) -> int:
        return self._write_page(probe.key, [self._rotation.turned_back(layer, probe.positions) for layer in layers])

    def _write_page(self, key: Key, layers: list[LayerKV]) -> int:
        record = page_record(key, layers)
        self._store.put_many([record])
        return record.header.num_bytes


def _joined(parts: Sequence[LayerKV]) -> LayerKV:
    """Spans in a row as one."""
    return LayerKV(*(torch.cat(states, dim=1) for states in zip(*(part[:2] for part in parts), strict=True)))


def _from(skipped: int, sources: Sequence[Iterable[LayerKV]]) -> Iterator[LayerKV]:
    """Per layer, spans in a row without the first tokens."""
    for parts in zip(*sources, strict=True):
        row = _joined(parts)
        yield LayerKV(row.keys[:, skipped:], row.values[:, skipped:])


def _at_once() -> None:
    """Nobody's way is given to: the engine computes in a process with threads of its own."""


def _no_canonical() -> Computed:
    raise AssertionError("engine_settings() refuses base='canonical'")
