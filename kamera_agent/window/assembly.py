"""The KV side of a window: carries out a plan on a pool and keeps account of what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import WindowTooLongError
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.window.layout import Piece
from kamera_agent.window.library import Library, Loaded
from kamera_agent.window.planner import Lying, Regime, Step, link, plan_steps

DECODE_BLOCK = 64
MAX_WASTE = 1 / 24


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A window put together: its steps, the next-token logits [vocab], and what it took."""

    steps: tuple[Step, ...]
    logits: torch.Tensor
    encoder_calls: int
    bytes_read: int
    plan_ms: float
    rebuild_ms: float
    prefill_ms: float


class Assembly:
    """Pool and spans of one window. After any failure it is empty, and the next turn rebuilds all."""

    def __init__(self, engine: Engine, library: Library, settings: Settings) -> None:
        self._engine = engine
        self._library = library
        self._settings = settings
        self.clear()

    def clear(self) -> None:
        """Forget everything that lies in the pool."""
        self.pool = self._engine.new_pool()
        self.lying: list[Lying] = []
        # Whether the pool was computed beyond the switch of the model's RoPE.
        self._long = False
        self._reply: list[tuple[int, range]] = []

    def plan(
        self, pieces: Sequence[Piece], *, answering: bool, unavailable: frozenset[bytes] = frozenset()
    ) -> list[Step]:
        """What a run of these pieces would do. Raises WindowTooLongError."""
        self.check_length(pieces)
        long = self._is_long(pieces)
        return plan_steps(
            pieces,
            self.lying,
            self._settings.fidelity,
            self._library,
            answering=answering,
            unavailable=unavailable,
            regime=Regime(long, switched=long != self._long),
        )

    def room(self, pieces: Sequence[Piece]) -> int:
        """Tokens that a reply behind these pieces may have: to the end of the window, or to the switch of its RoPE."""
        decoder = self._engine.family.decoder
        limit = decoder.max_positions if self._is_long(pieces) else decoder.switch or decoder.max_positions
        return limit - max(_num_tokens(pieces), _num_positions(pieces))

    def _is_long(self, pieces: Sequence[Piece]) -> bool:
        return self._engine.family.decoder.is_long(_num_positions(pieces))

    def run(self, pieces: Sequence[Piece]) -> Assembled:
        """Put the pieces together in the pool and compute the logits behind the last one.

        Raises WindowTooLongError before any work.
        """
        start = perf_counter()
        steps, loaded = self._resolve(pieces)
        planned = perf_counter()
        try:
            batch = self._rebuild(steps, loaded)
            self._long = self._is_long(pieces)
            rebuilt = perf_counter()
            logits, encoder_calls = self._engine.prefill(self.pool, batch)
        except BaseException:
            self.clear()
            raise
        return Assembled(
            steps=tuple(steps),
            logits=logits,
            encoder_calls=encoder_calls,
            bytes_read=sum(found.num_bytes for found in loaded.values()),
            plan_ms=1e3 * (planned - start),
            rebuild_ms=1e3 * (rebuilt - planned),
            prefill_ms=1e3 * (perf_counter() - rebuilt),
        )

    def extend(self, token: int) -> torch.Tensor:
        """Add one token of a reply behind the window; logits [vocab] behind it."""
        if self.pool.num_free == 0:
            self.pool.reserve(DECODE_BLOCK)
        last, num_before = self.lying[-1], len(self._reply)
        slots = self.pool.allocate(1)
        position, order = last.position + last.piece.run.extent, last.order + len(last.piece.run.token_ids)
        placed = Placed(TextRun((token,)), slots, position + num_before, order + num_before)
        try:
            logits = self._engine.prefill(self.pool, [placed]).logits
        except BaseException:
            self.clear()
            raise
        self._reply.append((token, slots[0]))
        return logits

    def finish(self, reply_id: str) -> TextRun | None:
        """Make the tokens added by extend a span of the window and return them; None where there are none."""
        if not self._reply:
            return None
        last = self.lying[-1]
        run = TextRun(tuple(token for token, _ in self._reply))
        piece = Piece(reply_id, "reply", "assistant", run)
        slots = _join([part for _, part in self._reply])
        position, order = last.position + last.piece.run.extent, last.order + len(last.piece.run.token_ids)
        chain = link(last.chain, run)
        self.lying.append(Lying(piece, slots, position, order, chain, last.exact, "computed", last.exact))
        self._reply = []
        return run

    def settle(self, steps: Sequence[Step], keep: int | None = None) -> None:
        """After the answer: remember the chunks that were computed, and give back what the pool has too much of.

        keep: number of spans that stay in the pool; None keeps all.
        """
        # Exact answers cannot use what is stored, so they do not pay for it. What is stored is of short windows.
        if self._settings.fidelity != "exact" and not self._long:
            self._remember(steps)
        for there in self.lying[len(self.lying) if keep is None else keep :]:
            self.pool.free(there.slots)
            self.lying.remove(there)
        if self.pool.num_free > MAX_WASTE * self.pool.capacity:
            self._compact()

    def _remember(self, steps: Sequence[Step]) -> None:
        slots = {there.piece.id: there.slots for there in self.lying}
        for step in steps:
            run = step.piece.run
            if step.origin == "computed" and isinstance(run, Chunk) and step.piece.id in slots:
                self._library.remember(run, self.pool.read(slots[step.piece.id]), step.antecedents)

    def check_integrity(self) -> None:
        """Assert that every slot has exactly one owner."""
        self.pool.check_integrity([there.slots for there in self.lying])

    def check_length(self, pieces: Sequence[Piece]) -> None:
        """Raise WindowTooLongError when the model was not built for a window of these pieces."""
        limit = self._engine.family.decoder.max_positions
        num_tokens, num_positions = _num_tokens(pieces), _num_positions(pieces)
        if max(num_tokens, num_positions) > limit:
            raise WindowTooLongError(
                f"The window would hold {num_tokens} tokens over {num_positions} positions; the model was built for "
                f"{limit}. Drop spans, or slide(keep_last=...)."
            )

    def _resolve(self, pieces: Sequence[Piece]) -> tuple[list[Step], dict[int, Loaded]]:
        """Plan, and read what the plan recalls, by index of the step. Plans anew without what cannot be read."""
        unavailable: frozenset[bytes] = frozenset()
        while True:
            steps = self.plan(pieces, answering=True, unavailable=unavailable)
            recalls = [i for i, step in enumerate(steps) if step.origin in ("recalled", "blind")]
            wanted = [(run, steps[i].match) for i in recalls if isinstance(run := steps[i].piece.run, Chunk)]
            found = self._library.load(wanted) if wanted else []
            missing = {chunk.digest for (chunk, _), record in zip(wanted, found, strict=True) if record is None}
            if not missing:
                return steps, {i: record for i, record in zip(recalls, found, strict=True) if record}
            unavailable |= missing

    def _rebuild(self, steps: Sequence[Step], loaded: dict[int, Loaded]) -> list[Placed]:
        """Bring everything but the computed spans into place; returns the batch to compute."""
        reused = {id(step.lying) for step in steps}
        for there in self.lying:
            if id(there) not in reused:
                self.pool.free(there.slots)
        num_new = sum(len(step.piece.run.token_ids) for step in steps if step.lying is None)
        self.pool.reserve(num_new + DECODE_BLOCK)
        num_positions = _num_positions([step.piece for step in steps])
        lying, batch = [], []
        for index, step in enumerate(steps):
            run = step.piece.run
            slots = step.lying.slots if step.lying else self.pool.allocate(len(run.token_ids))
            placed = Placed(run, slots, step.position, step.order)
            if step.origin == "computed":
                batch.append(placed)
            elif step.origin in ("recalled", "blind"):
                self._engine.load(self.pool, placed, loaded[index].canonical, loaded[index].factors)
            elif step.origin == "moved":
                self._engine.relocate(self.pool, placed, num_positions)
            lying.append(_lies(step, slots))
        self.lying = lying
        return batch

    def _compact(self) -> None:
        slots = self.pool.compact([there.slots for there in self.lying])
        self.lying = [replace(there, slots=new) for there, new in zip(self.lying, slots, strict=True)]


def _lies(step: Step, slots: tuple[range, ...]) -> Lying:
    """How a step's piece lies in the pool once the step is done."""
    chain = step.lying.chain if step.lying else step.chain
    exact_then = step.lying.exact_then if step.lying else step.exact
    return Lying(step.piece, slots, step.position, step.order, chain, exact_then, step.origin, step.exact)


def _num_tokens(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.run.token_ids) for piece in pieces)


def _num_positions(pieces: Sequence[Piece]) -> int:
    return sum(piece.run.extent for piece in pieces)


def _join(slots: Sequence[range]) -> tuple[range, ...]:
    """Neighbouring ranges as one."""
    joined: list[range] = []
    for part in slots:
        if joined and joined[-1].stop == part.start:
            joined[-1] = range(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return tuple(joined)
