"""The KV side of a window: carries out a plan on a pool and keeps account of its residents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from time import perf_counter

import torch

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import WindowTooLongError
from kamera_agent.progress import Progress
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.window.ahead import Ahead, Tick, compute, num_common, slice_of
from kamera_agent.window.layout import Item
from kamera_agent.window.library import Library, Loaded
from kamera_agent.window.planner import Regime, Resident, Step, make_plan, plan_steps
from kamera_agent.window.reply import Timings, Usage
from kamera_agent.window.worker import Job

# Slots that a turn reserves for its reply at once, so that decoding does not copy the pool for every token.
DECODE_BLOCK = 64
# The share of free slots beyond which a pool is copied into a smaller one after a turn.
MAX_WASTE = 1 / 24


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A window put together: its steps, the next-token logits [vocab], and the cost of both."""

    steps: tuple[Step, ...]
    logits: torch.Tensor
    encoder_calls: int
    bytes_read: int
    plan_ms: float
    rebuild_ms: float
    prefill_ms: float


class Assembly:
    """The pool and the residents of one window.

    An exception, such as the KeyboardInterrupt of Ctrl-C, may arrive at any point of a turn. While pool and residents
    are changed together, a mark says that they do not match; the mark is set before the change and cleared after it,
    and the turn that finds it set begins with an empty pool. Elsewhere a turn only writes into slots that no resident
    owns, and the next turn frees them. Neither relies on an exception handler, which could be interrupted as well.

    exact_only: whether turns use exact KV only, whatever the settings say.
    """

    def __init__(self, engine: Engine, library: Library, settings: Settings) -> None:
        self._engine = engine
        self._library = library
        self._settings = settings
        self._jobs: list[Job] = []
        self._is_healing = False
        self.exact_only = False
        self._empty()

    @property
    def residents(self) -> list[Resident]:
        """In the order of the window as of the last turn; none after a change that was not finished.

        May be read from any thread while spans are healed.
        """
        return [] if self._torn and not self._is_healing else self._residents

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV in use, expected windows included. May be read from any thread."""
        return self.pool.num_bytes + (self._ahead.pool.num_bytes if self._ahead else 0)

    def _empty(self) -> None:
        """Forget every resident, and take an empty pool."""
        self._torn = True
        self.pool = self._engine.new_pool()
        self._residents: list[Resident] = []
        # Whether the KV in the pool has the frequencies beyond the switch of the model's RoPE.
        self._long = False
        self._reply: list[tuple[int, Slots]] = []
        # Whether slots of the pool may be taken that neither a resident nor the reply owns.
        self._unsettled = False
        # Residents that are hidden from attention while they are computed again.
        self._hidden: list[Resident] = []
        self._ahead: Ahead | None = None
        self._torn = False

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Mark the pool and the residents as torn while they are changed."""
        self._torn = True
        try:
            yield
        except BaseException:
            # Frees the memory now. If this is interrupted, the mark is still set.
            self._empty()
            raise
        self._torn = False

    def _recover(self) -> None:
        """Put right what an interrupted or failed turn left, before anything is planned."""
        if self._torn:
            self._empty()
        elif self._unsettled:
            with self._changing():
                self._reply = []
                for resident in self._hidden:
                    self._engine.place(self.pool, resident.placed)
                self._hidden = []
                self.pool.reclaim([resident.slots for resident in self._residents])
                self._unsettled = False

    def adopt(self, source: Assembly, items: Sequence[Item]) -> None:
        """Take a copy of the residents that another assembly has of the beginning of these items."""
        source._recover()
        common = source.residents[: num_common(items, source.residents)]
        with self._changing():
            self._empty()
            slots = self.pool.take(source.pool, [resident.slots for resident in common])
            self._residents = [
                replace(resident, item=item, slots=copied)
                for item, resident, copied in zip(items, common, slots, strict=False)
            ]
            self._long = source._long

    def plan(
        self, items: Sequence[Item], *, answering: bool, unavailable: frozenset[bytes] = frozenset()
    ) -> list[Step]:
        """The steps that run() would take for these items. Raises WindowTooLongError."""
        self.check_length(items)
        self._recover()
        long = self._is_long(items)
        return plan_steps(
            items,
            # KV that was computed ahead has the frequencies of short windows.
            [*self.residents, *([] if long else self._spares())],
            replace(self._settings, fidelity="exact") if self.exact_only else self._settings,
            self._library,
            answering=answering,
            both_ways=self._engine.family.both_ways,
            unavailable=unavailable,
            regime=Regime(long, switched=long != self._long),
        )

    def room(self, items: Sequence[Item]) -> int:
        """Tokens that a reply to these items may have: up to the end of the window, or to the switch of its RoPE."""
        decoder = self._engine.family.decoder
        limit = decoder.max_positions if self._is_long(items) else decoder.switch or decoder.max_positions
        return limit - max(_num_tokens(items), _num_positions(items))

    def _is_long(self, items: Sequence[Item]) -> bool:
        return self._engine.family.decoder.is_long(_num_positions(items))

    def run(self, items: Sequence[Item]) -> Assembled:
        """Put the items together in the pool and compute the logits after the last one.

        Where the computation fails, the spans before the first computed one stay in the pool.

        Raises WindowTooLongError before any work.
        """
        start = perf_counter()
        steps, loaded = self._resolve(items)
        planned = perf_counter()
        with self._changing():
            residents, batch, stale = self._rebuild(steps, loaded)
            num_ready = next(i for i, step in enumerate(steps) if step.origin == "computed" or step.refresh)
            self._residents, self._long = residents[:num_ready], self._is_long(items)
            self._unsettled = True
        rebuilt = perf_counter()
        num_layers = self._engine.family.decoder.kv_shape.num_layers
        with Progress("computing", len(stale) + len(batch) + num_layers) as progress:
            outcome = self._engine.prefill(self.pool, batch, progress.advance, stale)
        self._residents = residents
        shares = iter([refreshed.computed(num_layers) for refreshed in outcome.refreshed])
        return Assembled(
            steps=tuple(replace(step, refreshed=next(shares)) if step.refresh else step for step in steps),
            logits=outcome.logits,
            encoder_calls=outcome.encoder_calls,
            bytes_read=sum(record.num_bytes for record in loaded.values()),
            plan_ms=1e3 * (planned - start),
            rebuild_ms=1e3 * (rebuilt - planned),
            prefill_ms=1e3 * (perf_counter() - rebuilt),
        )

    def extend(self, token: int) -> torch.Tensor:
        """Add one token of a reply to the window; returns the logits [vocab] after it."""
        if self.pool.num_free == 0:
            with self._changing():
                self.pool.reserve(DECODE_BLOCK)
        last, num_before = self._residents[-1], len(self._reply)
        slots = self.pool.allocate(1)
        position, order = last.position + last.item.run.extent, last.order + len(last.item.run.token_ids)
        placed = Placed(TextRun((token,)), slots, position + num_before, order + num_before)
        logits = self._engine.prefill(self.pool, [placed]).logits
        self._reply.append((token, slots))
        return logits

    def finish(self, reply_id: str) -> TextRun | None:
        """Make the tokens that extend() added a span, and return them; None where there are none."""
        if not self._reply:
            return None
        run = TextRun(tuple(token for token, _ in self._reply))
        reply = self._residents[-1].then(Item(reply_id, "reply", "assistant", run), self._reply_slots())
        with self._changing():
            self._residents, self._reply = [*self._residents, reply], []
        return run

    def _reply_slots(self) -> Slots:
        return Slots(tuple(part for _, slots in self._reply for part in slots.ranges))

    def settle(self, keep: int | None = None) -> None:
        """After an answer, remember the computed chunks and give back the pool's surplus.

        keep: number of spans that stay in the pool; None keeps all.
        """
        self._remember(self.pool, [resident for resident in self._residents if resident.origin == "computed"])
        with self._changing():
            for resident in self._residents[len(self._residents) if keep is None else keep :]:
                self.pool.free(resident.slots)
            self._residents = self._residents[:keep]
            self._unsettled = False
        self._give_back()

    def heal(self, items: Sequence[Item], tick: Tick, *, beside: bool) -> int:
        """Compute the first of these items that are not exact in their places; returns the number of tokens, often 0.

        Those of the present window's unchanged beginning are replaced. beside: whether the others are computed for a
        later turn, as far as they take no more room than the present window. tick: called once per run and per layer;
        what it raises leaves everything as it was.
        """
        self._is_healing = True
        try:
            return self._heal(items, tick, beside=beside)
        finally:
            self._is_healing = False

    def _heal(self, items: Sequence[Item], tick: Tick, *, beside: bool) -> int:
        self._recover()
        # A forward pass over a part of a long window would have the frequencies of a short one.
        if self._long or self._is_long(items):
            return 0
        num_same = num_common(items, self._residents)
        num_exact = next((i for i, resident in enumerate(self._residents[:num_same]) if not resident.exact), num_same)
        if num_exact < num_same:
            pool, healed = self.pool, self._heal_present(num_exact, num_same, tick)
        elif beside and 0 < num_same < len(items):
            pool, healed = self._heal_ahead(items, num_same, tick)
        else:
            if beside:
                self._ahead = None
            self._give_back()
            return 0
        self._remember(pool, healed)
        return _num_tokens([resident.item for resident in healed])

    def _heal_present(self, first: int, end: int, tick: Tick) -> list[Resident]:
        """Compute residents again from the first one on, which is not exact; those before it are."""
        inexact = [*takewhile(lambda resident: not resident.exact, self._residents[first:end])]
        old = inexact[: len(slice_of([resident.item for resident in inexact]))]
        with self._changing():
            self.pool.reserve(_num_tokens([resident.item for resident in old]))
            self._hidden, self._unsettled = old, True
        try:
            for resident in old:
                self.pool.hide(resident.slots)
            items = [resident.item for resident in old]
            new = compute(self._engine, self.pool, self._residents[first - 1], items, tick)
        except BaseException:
            # If this is interrupted, the next turn does it.
            self._recover()
            raise
        with self._changing():
            for resident in old:
                self.pool.free(resident.slots)
            # Their origins are those of the last answer.
            new = [replace(resident, origin=before.origin) for resident, before in zip(new, old, strict=True)]
            self._residents = [*self._residents[:first], *new, *self._residents[first + len(old) :]]
            self._hidden, self._unsettled = [], False
        return new

    def _heal_ahead(self, items: Sequence[Item], num_same: int, tick: Tick) -> tuple[KVPool, list[Resident]]:
        """Compute the next items of an expected window, which has num_same items in common with this one."""
        bound = _num_tokens([resident.item for resident in self._residents])
        totals = accumulate(len(item.run.token_ids) for item in items[num_same:])
        fitting = items[: num_same + sum(total <= bound for total in totals)]
        num_tokens = _num_tokens(fitting)
        ahead = self._ahead
        if ahead is None or num_common(fitting, ahead.residents) < num_same or ahead.pool.capacity < num_tokens:
            ahead = self._ahead = Ahead(self.pool, self._residents[:num_same], num_tokens)
        return ahead.pool, ahead.compute(self._engine, fitting, tick)

    def _spares(self) -> list[Resident]:
        return self._ahead.residents if self._ahead else []

    def _remember(self, pool: KVPool, residents: Sequence[Resident]) -> None:
        # Stored KV has the frequencies of short windows.
        for resident in () if self._long else residents:
            if isinstance(run := resident.item.run, Chunk):
                # read() copies: another span may take the slots before the worker comes to this chunk.
                job = self._library.remember(run, pool.read(resident.slots), resident.seen)
                self._jobs += [job] if job else []

    def count_written(self) -> int:
        """Bytes that the library handed to the store for this window since the last call."""
        done = [job for job in self._jobs if job.done]
        self._jobs = [job for job in self._jobs if job not in done]
        return sum(job.result or 0 for job in done)

    def check_integrity(self) -> None:
        """Assert that every slot has exactly one owner, once the rest of an interrupted turn is put right."""
        if self._torn:
            self._empty()
        owners = [*(resident.slots for resident in self._residents), self._reply_slots()]
        if self._unsettled:
            self.pool.reclaim(owners)
        self.pool.check_integrity(owners)

    def check_length(self, items: Sequence[Item]) -> None:
        """Raise WindowTooLongError when these items are more than the model was built for."""
        limit = self._engine.family.decoder.max_positions
        num_tokens, num_positions = _num_tokens(items), _num_positions(items)
        if max(num_tokens, num_positions) > limit:
            raise WindowTooLongError(
                f"The window would hold {num_tokens} tokens over {num_positions} positions; the model was built for "
                f"{limit}. Drop spans, or slide(keep_last=...)."
            )

    def _resolve(self, items: Sequence[Item]) -> tuple[list[Step], dict[int, Loaded]]:
        """The steps, and for those that recall, by index, the KV read from the store.

        Where the store cannot read a chunk after all, everything is planned again without it.
        """
        unavailable: frozenset[bytes] = frozenset()
        while True:
            steps = self.plan(items, answering=True, unavailable=unavailable)
            recalls = {index: step.evidence for index, step in enumerate(steps) if step.evidence and step.evidence.base}
            records = dict(zip(recalls, self._library.load([*recalls.values()]), strict=True)) if recalls else {}
            missing = {steps[index].item.run.digest for index, record in records.items() if record is None}
            if not missing:
                return steps, {index: record for index, record in records.items() if record}
            unavailable |= missing

    def _rebuild(
        self, steps: Sequence[Step], loaded: dict[int, Loaded]
    ) -> tuple[list[Resident], list[Placed], list[Placed]]:
        """Bring every span into place; returns all residents, the runs to compute, and the spans to refresh."""
        reused = {id(step.resident) for step in steps}
        for resident in self._residents:
            if id(resident) not in reused:
                self.pool.free(resident.slots)
        present = set(map(id, self._residents))
        num_new = _num_tokens([step.item for step in steps if id(step.resident) not in present])
        self.pool.reserve(num_new + DECODE_BLOCK)
        num_positions = _num_positions([step.item for step in steps])
        residents: list[Resident] = []
        batch: list[Placed] = []
        stale: list[Placed] = []
        for index, step in enumerate(steps):
            run = step.item.run
            if step.resident is None:
                slots = self.pool.allocate(len(run.token_ids))
            elif id(step.resident) in present:
                slots = step.resident.slots
            else:
                assert self._ahead
                [slots] = self.pool.take(self._ahead.pool, [step.resident.slots])
            placed = Placed(run, slots, step.position, step.order)
            if step.origin == "computed":
                batch.append(placed)
            elif step.origin in ("recalled", "blind"):
                self._engine.load(self.pool, placed, loaded[index].base, loaded[index].factors)
            elif step.origin == "moved":
                self._engine.relocate(self.pool, placed, num_positions)
            stale += [placed] if step.refresh else []
            residents.append(_resident(step, slots))
        return residents, batch, stale

    def _give_back(self) -> None:
        """Copy the pool into a smaller one where much of it is free."""
        if self.pool.num_free <= MAX_WASTE * self.pool.capacity:
            return
        with self._changing():
            slots = self.pool.compact([resident.slots for resident in self._residents])
            self._residents = [replace(old, slots=new) for old, new in zip(self._residents, slots, strict=True)]


def _resident(step: Step, slots: Slots) -> Resident:
    """The resident that a step makes. KV that was taken over keeps what it has seen."""
    seen = step.evidence.seen if step.evidence else step.antecedents
    refreshed = step.resident.refreshed if step.resident else None
    if step.refresh:
        seen, refreshed = replace(seen, exact=False), step.antecedents.chunks
    return Resident(step.item, slots, step.position, step.order, seen, step.origin, step.exact, step.stale, refreshed)


def _num_tokens(items: Sequence[Item]) -> int:
    return sum(len(item.run.token_ids) for item in items)


def _num_positions(items: Sequence[Item]) -> int:
    return sum(item.run.extent for item in items)


def make_usage(assembled: Assembled, num_generated: int, bytes_written: int) -> Usage:
    """The account of a turn."""
    plan = make_plan(assembled.steps)
    num_visual = sum(isinstance(step.item.run, Chunk) and step.item.run.has_pixels for step in assembled.steps)
    return Usage(
        tokens_computed=plan.num_tokens("computed"),
        tokens_kept=plan.num_tokens("kept"),
        tokens_moved=plan.num_tokens("moved"),
        tokens_recalled=plan.num_tokens("recalled"),
        tokens_blind=plan.num_tokens("blind"),
        tokens_switched=sum(
            len(step.item.run.token_ids) for step in assembled.steps if step.switched and step.origin == "computed"
        ),
        tokens_generated=num_generated,
        encoder_calls=assembled.encoder_calls,
        encoder_avoided=num_visual - assembled.encoder_calls,
        bytes_read=assembled.bytes_read,
        bytes_written=bytes_written,
        tokens_stale=sum(row.num_tokens for row in plan.rows if row.stale and row.stale.of_chunks),
        tokens_refreshed=round(sum(row.num_tokens * row.refreshed for row in plan.rows)),
    )


def make_timings(assembled: Assembled, first_token_ms: float, decode_ms: float, settle_ms: float) -> Timings:
    """The timings of a turn."""
    parts = assembled.plan_ms, assembled.rebuild_ms, assembled.prefill_ms
    return Timings(*parts, first_token_ms, decode_ms, settle_ms)
