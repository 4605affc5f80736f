"""The KV side of a window: carries out plans on its residence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from operator import is_
from time import perf_counter
from typing import NamedTuple

import torch

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Demand, Settings
from kamera_agent.errors import WindowTooLongError
from kamera_agent.progress import Progress
from kamera_agent.runtime.engine import Engine, Partial, Placed, StaleSpan
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.resemblance import Resemblance
from kamera_agent.window.ahead import Tick
from kamera_agent.window.healing import Healing
from kamera_agent.window.layout import Place, count_tokens
from kamera_agent.window.library import Library
from kamera_agent.window.planner import Planner, Regime
from kamera_agent.window.records import Loaded
from kamera_agent.window.residence import Guess, Residence
from kamera_agent.window.resident import Resident
from kamera_agent.window.step import Step, as_carried_out
from kamera_agent.window.worker import Job

# Slots that are reserved for a reply at once, so that decoding does not copy the pool for every token. Where the pool
# of a long window grows, it gets more of them.
DECODE_BLOCK = 64


class Work(NamedTuple):
    """What a forward pass computes: runs, stale spans, and spans of which only some tokens are computed."""

    batch: Sequence[Placed]
    stale: Sequence[StaleSpan]
    partial: Sequence[Partial]


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A window put together: its steps, the next-token logits [vocab], and the cost of both."""

    steps: tuple[Step | Resident, ...]
    logits: torch.Tensor
    encoder_calls: int
    bytes_read: int
    plan_ms: float
    rebuild_ms: float
    prefill_ms: float


class Assembly:
    """Puts windows together in a residence, and has the library remember what it computes.

    exact_only: whether turns use exact KV only, whatever the settings say. demand: of turns; None leaves it to the
        settings.
    """

    def __init__(self, engine: Engine, library: Library, settings: Settings) -> None:
        self._engine = engine
        self._library = library
        self._settings = settings
        self.residence = Residence(engine)
        self._healing = Healing(engine, self.residence)
        self._resemblance = Resemblance(engine.family)
        self._jobs: list[Job] = []
        self.exact_only = False
        self.demand: Demand | None = None

    def plan(
        self, places: Sequence[Place], *, answering: bool, unavailable: frozenset[bytes] = frozenset()
    ) -> list[Step | Resident]:
        """The steps that run() would take for these places. Raises WindowTooLongError."""
        self.check_length(places)
        residence, long = self.residence, self._is_long(places)
        residence.recover()
        planner = Planner(
            self._demanded,
            self._library,
            self._engine.family.computed_whole,
            self._resemblance.changed,
            Regime(long, switched=long != residence.is_long),
            unavailable,
        )
        # KV that was computed ahead has the frequencies of short windows.
        spares = [] if long else residence.spares
        return planner.steps(places, residence.residents, spares, answering=answering)

    @property
    def _demanded(self) -> Settings:
        if self.exact_only or self.demand == "exact":
            return replace(self._settings, fidelity="exact")
        return replace(self._settings, stale=self.demand) if self.demand else self._settings

    def room(self, places: Sequence[Place]) -> int:
        """Tokens that a reply to a window may have: up to the end of the window, or to the switch of its RoPE."""
        decoder = self._engine.family.decoder
        limit = decoder.max_positions if self._is_long(places) else decoder.switch or decoder.max_positions
        return limit - max(places[-1].end_order, places[-1].end_position)

    def _is_long(self, places: Sequence[Place]) -> bool:
        return self._engine.family.decoder.is_long(places[-1].end_position)

    def run(self, places: Sequence[Place], num_reply: int = 0) -> Assembled:
        """Put a window together in the pool and compute the logits after the last one.

        num_reply: tokens that a reply may have. Where the computation fails, the spans before the first computed one
            stay in the pool.
        Raises WindowTooLongError before any work.
        """
        residence, start = self.residence, perf_counter()
        steps, loaded = self._resolve(places)
        resolved = perf_counter()
        with residence.changing():
            residents, work = self._rebuild(steps, loaded, num_reply)
            num_ready = next(i for i, step in enumerate(steps) if _computes(step))
            residence.residents, residence.is_long = residents[:num_ready], self._is_long(places)
            residence.unsettled = True
        rebuilt = perf_counter()
        decoder = self._engine.family.decoder
        num_layers, num_ticks = len(decoder.kinds), sum(map(len, work)) + len(decoder.key_modules)
        with Progress("computing", num_ticks) as progress:
            outcome = self._engine.prefill(residence.pool, work.batch, progress.advance, work.stale, work.partial)
        done = as_carried_out(steps, [refreshed.computed(num_layers) for refreshed in outcome.refreshed])
        residence.residents = [
            resident if step is planned or isinstance(step, Resident) else _resident(step, resident.slots)
            for resident, step, planned in zip(residents, done, steps, strict=True)
        ]
        return Assembled(
            steps=tuple(done),
            logits=outcome.logits,
            encoder_calls=outcome.encoder_calls,
            bytes_read=sum(record.num_bytes for record in loaded.values()),
            plan_ms=1e3 * (resolved - start),
            rebuild_ms=1e3 * (rebuilt - resolved),
            prefill_ms=1e3 * (perf_counter() - rebuilt),
        )

    def extend(self, token: int, guess: Callable[[], Sequence[int]]) -> torch.Tensor:
        """Add one token of a reply to the window; returns the logits [vocab] after it.

        guess: called where a forward pass is needed; returns tokens that may follow. They are computed in the same
            pass, so that the ones that do follow need none.
        """
        residence = self.residence
        if not residence.guesses or residence.guesses[0].token != token:
            self._compute([token, *guess()])
        first, *residence.guesses = residence.guesses
        residence.reply.append((token, first.slots))
        return first.logits

    def _compute(self, token_ids: Sequence[int]) -> None:
        """Compute tokens that may follow those of the reply."""
        residence, pool = self.residence, self.residence.pool
        # Those that have not come would be seen by the ones that are computed now.
        pool.free(Slots.of(wrong.slots for wrong in residence.guesses))
        residence.guesses = []
        if pool.num_free < len(token_ids):
            with residence.changing():
                pool.reserve(max(DECODE_BLOCK, len(token_ids)))
        last, num_before = residence.residents[-1].place, len(residence.reply)
        slots = pool.allocate(len(token_ids))
        placed = Placed(TextRun(tuple(token_ids)), slots, last.end_position + num_before, last.end_order + num_before)
        rows = self._engine.extend(pool, placed)
        residence.guesses = list(map(Guess, token_ids, slots.single(), rows))

    def settle(self, keep: int | None = None) -> None:
        """After an answer, remember the computed chunks and make the pool fit.

        keep: number of spans that stay in the pool; None keeps all.
        """
        residence = self.residence
        self._remember(residence.pool, [resident for resident in residence.residents if resident.origin == "computed"])
        residence.settle(keep)

    def heal(self, places: Sequence[Place], tick: Tick, *, beside: bool) -> int:
        """Compute what is not exact first in these places; returns the number of tokens, often 0.

        beside: as of Healing.heal(). tick: called once per run and per layer; what it raises leaves everything as it
        was.
        """
        pool, healed = self._healing.heal(places, tick, beside=beside)
        self._remember(pool, healed)
        return count_tokens(resident.place.item for resident in healed)

    def _remember(self, pool: KVPool, residents: Sequence[Resident]) -> None:
        # Stored KV has the frequencies of short windows.
        for resident in () if self.residence.is_long else residents:
            if isinstance(run := resident.place.item.run, Chunk):
                # keep() copies: another span may take the slots before the worker comes to this chunk.
                job = self._library.remember(run, pool.keep(resident.slots), resident.seen)
                self._jobs += [job] if job else []

    def count_written(self) -> int:
        """Bytes that the library handed to the store for this window since the last call."""
        done = [job for job in self._jobs if job.done]
        self._jobs = [job for job in self._jobs if job not in done]
        return sum(job.result or 0 for job in done)

    def check_length(self, places: Sequence[Place]) -> None:
        """Raise WindowTooLongError when a window is longer than the model was built for."""
        limit = self._engine.family.decoder.max_positions
        num_tokens, num_positions = places[-1].end_order, places[-1].end_position
        if max(num_tokens, num_positions) > limit:
            raise WindowTooLongError(
                f"The window would hold {num_tokens} tokens over {num_positions} positions; the model was built for "
                f"{limit}. Drop spans, or slide(keep_last=...)."
            )

    def _resolve(self, places: Sequence[Place]) -> tuple[list[Step | Resident], dict[int, Loaded]]:
        """The steps, and for those that recall, by index, the KV read from the store.

        Where the store cannot read a chunk after all, everything is planned again without it.
        """
        unavailable: frozenset[bytes] = frozenset()
        while True:
            steps = self.plan(places, answering=True, unavailable=unavailable)
            recalls = {
                index: step.evidence
                for index, step in enumerate(steps)
                if isinstance(step, Step) and step.evidence and step.evidence.base
            }
            records = dict(zip(recalls, self._library.load([*recalls.values()]), strict=True)) if recalls else {}
            missing = {steps[index].place.item.run.digest for index, record in records.items() if record is None}
            if not missing:
                return steps, {index: record for index, record in records.items() if record}
            unavailable |= missing

    def _rebuild(
        self, steps: Sequence[Step | Resident], loaded: dict[int, Loaded], num_reply: int
    ) -> tuple[list[Resident], Work]:
        """Bring every span into place; returns all residents, and what is to be computed."""
        residence, pool = self.residence, self.residence.pool
        num_same = sum(takewhile(bool, map(is_, steps, residence.residents)))
        before, residents, steps = residence.residents[num_same:], residence.residents[:num_same], steps[num_same:]
        reused = {id(step if isinstance(step, Resident) else step.resident) for step in steps}
        # Copies: a resembled image may go, and another span may take its slots.
        given = {
            index: pool.read(step.near.resident.slots)
            for index, step in enumerate(steps, start=num_same)
            if isinstance(step, Step) and step.near and not step.resident
        }
        present, gone = set(map(id, before)), [resident for resident in before if id(resident) not in reused]
        kept = [(step, step.resident) for step in steps if isinstance(step, Step) and step.resident]
        # Of a text that was written anew after its beginning, the rest goes as well.
        ends = [resident.slots.split(step.num_begun)[1] for step, resident in kept if id(resident) in present]
        pool.free(Slots.of([*(resident.slots for resident in gone), *ends]))
        reply = min(num_reply, max(DECODE_BLOCK, steps[-1].place.end_order // 16))
        first = min(reply, DECODE_BLOCK)
        num_new = count_tokens(step.place.item for step in steps if isinstance(step, Step))
        num_new -= sum(step.num_begun for step, resident in kept if id(resident) in present)
        pool.reserve(num_new + first, reply - first)
        taken = self._take([resident for _, resident in kept if id(resident) not in present])
        batch: list[Placed] = []
        stale: list[StaleSpan] = []
        partial: list[Partial] = []
        moved: list[Placed] = []
        for index, step in enumerate(steps, start=num_same):
            if isinstance(step, Resident):
                residents.append(step)
                continue
            if step.resident:
                slots = taken.get(id(step.resident), step.resident.slots)
                if step.near:
                    slots = Slots.of([slots.split(step.num_begun)[0], pool.allocate(len(step.near.changed))])
            else:
                slots = pool.allocate(len(step.place.item.run.token_ids))
            resident = _resident(step, slots)
            residents.append(resident)
            if step.origin == "computed":
                batch.append(resident.placed)
            elif step.origin in ("recalled", "blind"):
                base, factors, _ = loaded[index]
                self._engine.load(pool, resident.placed, base.kv, factors, base.trace)
            elif step.origin == "moved":
                moved.append(resident.placed)
            elif index in given:
                self._engine.load(pool, resident.placed, given[index], None)
            if step.near and step.near.changed:
                partial.append(Partial(resident.placed, step.near.changed))
            if step.refresh:
                stale.append(StaleSpan(resident.placed, lacks=bool(step.stale and step.stale.lacks)))
        if moved:
            self._engine.relocate(pool, _joined(moved), steps[-1].place.end_position)
        # Recurrent layers keep something of each span.
        return residents, Work(batch if pool.fold else _joined(batch), stale, partial)

    def _take(self, spares: Sequence[Resident]) -> dict[int, Slots]:
        """Copy residents from beside the window into its pool; returns their slots there, by id()."""
        ahead = self.residence.ahead
        if not spares or not ahead:
            return {}
        [left] = self.residence.pool.take(ahead.pool, [Slots.of(resident.slots for resident in spares)])
        taken = {}
        for resident in spares:
            taken[id(resident)], left = left.split(len(resident.place.item.run.token_ids))
        return taken


def _computes(step: Step | Resident) -> bool:
    return isinstance(step, Step) and (step.origin == "computed" or step.refresh or step.near is not None)


def _resident(step: Step, slots: Slots) -> Resident:
    """The resident that a step makes. KV that was taken over keeps what it has seen."""
    seen, refreshed = step.seen, step.resident.refreshed if step.resident else None
    if step.refresh:
        seen, refreshed = replace(seen, exact=False), step.place.before.chunks
    return Resident(step.place, slots, seen, step.origin, step.exact, step.stale, refreshed)


def _joined(spans: Sequence[Placed]) -> list[Placed]:
    """The same tokens in the same places, with texts in a row as one run."""
    rows: list[list[Placed]] = []
    for span in spans:
        if rows and _continues(span, rows[-1][-1]):
            rows[-1].append(span)
        else:
            rows.append([span])
    return [row[0] if len(row) == 1 else _as_one(row) for row in rows]


def _continues(span: Placed, before: Placed) -> bool:
    are_texts = isinstance(span.run, TextRun) and isinstance(before.run, TextRun)
    return are_texts and span.order == before.order + len(before.run.token_ids)


def _as_one(row: Sequence[Placed]) -> Placed:
    run = TextRun(tuple(chain.from_iterable(span.run.token_ids for span in row)))
    return Placed(run, Slots.of(span.slots for span in row), row[0].position, row[0].order)
