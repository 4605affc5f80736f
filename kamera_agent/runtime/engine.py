"""The engine: rebuild, scattered prefill and decode, for one model and any number of pools."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Any, NamedTuple
from weakref import finalize, ref

import torch
from torch.utils.hooks import RemovableHandle

from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.forking import Computing
from kamera_agent.runtime.bank import Tables
from kamera_agent.runtime.capture import Tap, remove
from kamera_agent.runtime.encoder import Encoder
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.text_only import TextOnly
from kamera_agent.runtime.gate import Gate
from kamera_agent.runtime.interface import Interface, current
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.recurrence import Trace
from kamera_agent.runtime.refresh import Refresh, Refreshed
from kamera_agent.runtime.rope import self_test
from kamera_agent.runtime.scan import Scan
from kamera_agent.runtime.scatter import scatter_test
from kamera_agent.runtime.slot_cache import Queries, SlotCache


class Placed(NamedTuple):
    """A run in its place. position, order: of its first token, among the window's positions and among its tokens."""

    run: Run
    slots: Slots
    position: int
    order: int


class StaleSpan(NamedTuple):
    """A span to be refreshed. lacks: whether it has not seen some chunk before it, or saw one in another place."""

    placed: Placed
    lacks: bool


class Partial(NamedTuple):
    """A span in its place of which only some tokens are computed. tokens: their indices, in order; None for all."""

    placed: Placed
    tokens: Sequence[int] | None = None

    @property
    def slots(self) -> Slots:
        """The slots of the tokens."""
        return self.placed.slots if self.tokens is None else self.placed.slots.at(self.tokens)

    def pick(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Of values of all tokens along an axis, those of the tokens."""
        if self.tokens is None:
            return values
        return values.index_select(axis, torch.tensor(self.tokens, device=values.device))


class Prefilled(NamedTuple):
    """The outcome of a forward pass.

    logits [vocab]: float32, of the next token after the last one of the batch. encoder_calls: runs of the encoder.
    refreshed: one per stale span.
    """

    logits: torch.Tensor
    encoder_calls: int
    refreshed: Sequence[Refreshed]


# How often a wait for answers looks again.
POLL_S = 0.005


def _no_tick() -> None:
    """Progress that nobody watches."""


class Engine(Computing):
    """Runs one model over the pools of many windows.

    answers: weak references to whatever computes an answer now; wait_idle() waits for it.
    rope_errors: by layer that keeps keys, the relative error of those turned here against the model's own, from the
        self-test.
    Raises ConventionError at construction when the RoPE self-test fails.
    """

    depth = 1

    def __init__(self, family: Family, encoder_cache_bytes: int) -> None:
        super().__init__()
        self.family = family
        self.encoder = Encoder(family, encoder_cache_bytes)
        self._tap, self._gate, self._mixing = Tap(), Gate(), Gate()
        hooks: list[RemovableHandle] = []
        finalize(self, remove, hooks).atexit = False
        self._tap.install(family.decoder.key_modules, hooks)
        self._gate.install(family.decoder.module.layers, hooks)
        if recurrence := family.decoder.recurrence:
            self._mixing.install([*recurrence.mixers.values()], hooks)
        self._interface = Interface(family.decoder)
        self.rope_errors = self_test(family, self.forward_at)
        if isinstance(family, TextOnly):
            scatter_test(family, self.forward_at)

    def renew(self) -> None:
        # Guards what windows share: the model and its hooks, the state of its rotary embedding, the encoder's cache. It
        # is held for one forward pass at a time, so that windows take turns. A pool needs no lock: it belongs to one
        # window, and a window answers in one thread. This lock is the innermost: its holder takes no other lock but
        # the Interface's, whose holder takes none.
        self.busy = threading.Lock()
        self.answers: set[ref[Any]] = set()

    @property
    def is_answering(self) -> bool:
        """Whether an answer is being computed."""
        return any(answer() for answer in self.answers.copy())

    def wait_idle(self, timeout_s: float) -> None:
        """Wait until no answer is being computed, for at most timeout_s seconds, or until the program ends."""
        # Looks again and again: an answer that Ctrl-C interrupts while it notifies a condition could keep it locked.
        end = monotonic() + timeout_s
        while self.is_answering and monotonic() < end:
            if not threading.main_thread().is_alive():
                return
            sleep(POLL_S)

    def new_pool(self) -> KVPool:
        """An empty pool for one window."""
        return self.family.decoder.new_pool()

    @torch.no_grad()
    def relocate(self, pool: KVPool, spans: Sequence[Placed], num_positions: int = 0) -> None:
        """Turn the keys of spans to their positions, in one call, and enter their places in the window's order.

        num_positions: of the whole window; a RoPE that switches its frequencies needs it.
        """
        pool.relocate(Slots.of(placed.slots for placed in spans), self._tables(spans, num_positions))
        for placed in spans:
            self.place(pool, placed)

    @torch.no_grad()
    def load(
        self,
        pool: KVPool,
        placed: Placed,
        base: Sequence[LayerKV],
        factors: Sequence[Factors] | None,
        trace: Trace | None = None,
    ) -> None:
        """Rebuild a chunk at its position from a base and the factors of a patch (None: the base as it is).

        trace: what recurrent layers keep of it, on their device; None where there are no such layers.
        Under a RoPE that switches its frequencies, the window must be shorter than the switch, because only KV of such
        windows is stored.
        """
        pool.load(placed.slots, base, factors, self._tables([placed]))
        if pool.fold and trace:
            pool.fold.load(placed.slots, trace)
        self.place(pool, placed)

    def place(self, pool: KVPool, placed: Placed) -> None:
        """Enter a span's place in the window's order. Its KV must be there."""
        pool.place(placed.slots, placed.order, self.family.both_ways(placed.run))

    @torch.no_grad()
    def prefill(
        self,
        pool: KVPool,
        batch: Sequence[Placed],
        tick: Callable[[], None] = _no_tick,
        stale: Sequence[StaleSpan] = (),
        partial: Sequence[Partial] = (),
    ) -> Prefilled:
        """Compute the runs of a batch in one forward pass, wherever in the window they are. KV goes to their slots.

        Every other span must be in its place already. tick: called once per run and per layer; what it raises ends the
        pass.
        stale: spans in their places that are refreshed in the same pass. partial: spans of which some tokens are
            computed in it. If it fails, the KV of both is of no use.
        Raises ModelError where the model or its processor was changed since it was loaded.
        """
        self.family.require_unchanged()
        with self.busy:
            calls_before = self.encoder.num_calls
            parts = [*(Partial(span.placed) for span in stale), *partial, *map(Partial, batch)]
            rows = []
            for part in parts:
                rows.append(part.pick(self.embed(part.placed.run), 0))
                tick()
            hidden, refreshed = self._forward(pool, stale, parts, torch.cat(rows), tick)
            logits = self.family.logits(hidden[-1])
            return Prefilled(logits, self.encoder.num_calls - calls_before, refreshed)

    @torch.no_grad()
    def extend(self, pool: KVPool, placed: Placed) -> torch.Tensor:
        """Compute a run of text at the end of a window; returns the logits [T, vocab] after each of its tokens."""
        with self.busy:
            self.place(pool, placed)
            positions, embeds = self._positions([placed]), self.embed(placed.run)
            # Of tokens that are guessed, the last ones may go.
            each = placed.slots.single()
            return self.family.logits(self.forward_at(pool, placed.slots, embeds, positions, spans=each))

    @torch.no_grad()
    def canonical(self, chunk: Chunk) -> Kept:
        """What the layers keep of a chunk that follows the anchor alone."""
        pool = self.new_pool()
        anchor = TextRun(self.family.chat.anchor_ids)
        start = anchor.extent
        placed = Placed(chunk, pool.allocate(len(chunk.token_ids)), start, start)
        self.prefill(pool, [Placed(anchor, pool.allocate(start), 0, 0), placed])
        return pool.keep(placed.slots)

    @torch.no_grad()
    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        """Next-token logits [vocab] in float32 of the runs in a row, by a plain Hugging Face forward pass."""
        with self.busy:
            self._gate.current = self._mixing.current = self._tap.current = current.attention = None
            return self.family.reference_logits(runs)

    def full_prefill(self, runs: Sequence[Run], tick: Callable[[], None]) -> torch.Tensor:
        """The same logits, computed with the encoder's cache, in a pool that is dropped. tick: as of prefill()."""
        pool, batch = self.new_pool(), list[Placed]()
        pool.reserve(sum(len(run.token_ids) for run in runs))
        position = order = 0
        for run in runs:
            batch.append(Placed(run, pool.allocate(len(run.token_ids)), position, order))
            position, order = position + run.extent, order + len(run.token_ids)
        return self.prefill(pool, batch, tick).logits

    def embed(self, run: Run) -> torch.Tensor:
        """Decoder inputs [T, hidden] of a run. Runs the encoder for a chunk that is not in its cache."""
        if isinstance(run, Chunk) and run.has_pixels:
            return self.family.embed(run, self.encoder.features(run))
        return self.family.embed(run, None)

    def _tables(self, spans: Sequence[Placed], num_positions: int = 0) -> list[Tables]:
        positions = self._positions(spans)
        # A rotary embedding that switches its frequencies keeps the current ones as state.
        with self.busy:
            return self.family.decoder.rope_tables(positions, num_positions)

    def _positions(self, spans: Sequence[Placed]) -> torch.Tensor:
        return torch.cat([self.family.positions(placed.run, placed.position) for placed in spans], dim=1)

    def _forward(
        self,
        pool: KVPool,
        stale: Sequence[StaleSpan],
        parts: Sequence[Partial],
        embeds: torch.Tensor,
        tick: Callable[[], None],
    ) -> tuple[torch.Tensor, Sequence[Refreshed]]:
        """parts: all that is computed, the stale spans first. embeds: their decoder inputs [Q, hidden]."""
        for part in parts:
            self.place(pool, part.placed)
        places = (self.family.positions(part.placed.run, part.placed.position) for part in parts)
        positions = torch.cat([part.pick(of, 1) for part, of in zip(parts, places, strict=True)], dim=1)
        slots = Slots.of(part.slots for part in parts)
        refresh = None
        if stale:
            num_layers, spans = len(self.family.decoder.kinds), [span.placed.slots for span in stale]
            refresh = Refresh(pool, num_layers, slots, spans, lacking=any(span.lacks for span in stale))
        hidden = self.forward_at(pool, slots, embeds, positions, tick, refresh, [part.slots for part in parts])
        return hidden, refresh.refreshed if refresh else ()

    def forward_at(
        self,
        pool: KVPool,
        slots: Slots,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        tick: Callable[[], None] = _no_tick,
        refresh: Refresh | None = None,
        spans: Sequence[Slots] = (),
    ) -> torch.Tensor:
        """Compute tokens whose places pool.place() has entered, and write their KV to their slots.

        embeds: [Q, hidden]. positions: [A, Q]. tick: called once per layer. refresh: of spans whose tokens come first.
        spans: the slots, cut into the parts that recurrent layers keep separately; empty for one.
        Returns the decoder's output [Q, hidden]. Takes no lock: the caller holds it, or has the model to itself.
        """
        pool.settle(slots)
        queries = refresh.queries if refresh else Queries(slots.index(pool.device))
        decoder = self.family.decoder
        scan = Scan(pool.fold, pool.order, spans or [slots]) if pool.fold else None
        memories = (
            dict(zip(decoder.recurrence.mixers, scan.memories, strict=True)) if scan and decoder.recurrence else {}
        )

        def keep_master(layer: int, output: torch.Tensor) -> None:
            row = pool.rows[layer]
            row.masters[:, queries.on(row.bank.shape.device)] = decoder.keys_of(output, row.bank.shape.keys)
            if not queries.probed:
                tick()

        try:
            self._tap.current = threading.get_ident(), keep_master
            self._gate.current = (threading.get_ident(), refresh) if refresh else None
            self._mixing.current = (threading.get_ident(), scan) if scan else None
            masks = self._interface.open(pool, queries)
            hidden = self.family.hidden_states(embeds, positions, masks, SlotCache(pool, queries, memories))
        finally:
            self._gate.current = self._mixing.current = self._tap.current = current.attention = None
            self._interface.close()
        if scan:
            scan.finish()
        return hidden
