"""The KV side of a window: carries out plans on its residence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from kamera_agent.chunk import Chunk, TextRun
from kamera_agent.config import Settings
from kamera_agent.errors import WindowTooLongError
from kamera_agent.progress import Progress
from kamera_agent.runtime.engine import Engine, Placed
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.window.ahead import Tick
from kamera_agent.window.healing import Healing
from kamera_agent.window.layout import Item, count_positions, count_tokens
from kamera_agent.window.library import Library, Loaded
from kamera_agent.window.planner import Regime, Step, plan_steps
from kamera_agent.window.residence import Residence
from kamera_agent.window.resident import Resident
from kamera_agent.window.worker import Job

# Slots that a turn reserves for its reply at once, so that decoding does not copy the pool for every token.
DECODE_BLOCK = 64


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
    """Puts windows together in a residence, and has the library remember what it computes.

    exact_only: whether turns use exact KV only, whatever the settings say.
    """

    def __init__(self, engine: Engine, library: Library, settings: Settings) -> None:
        self._engine = engine
        self._library = library
        self._settings = settings
        self.residence = Residence(engine)
        self._healing = Healing(engine, self.residence)
        self._jobs: list[Job] = []
        self.exact_only = False

    def plan(
        self, items: Sequence[Item], *, answering: bool, unavailable: frozenset[bytes] = frozenset()
    ) -> list[Step]:
        """The steps that run() would take for these items. Raises WindowTooLongError."""
        self.check_length(items)
        residence, long = self.residence, self._is_long(items)
        residence.recover()
        return plan_steps(
            items,
            # KV that was computed ahead has the frequencies of short windows.
            [*residence.residents, *([] if long else residence.spares)],
            replace(self._settings, fidelity="exact") if self.exact_only else self._settings,
            self._library,
            answering=answering,
            both_ways=self._engine.family.both_ways,
            unavailable=unavailable,
            regime=Regime(long, switched=long != residence.is_long),
        )

    def room(self, items: Sequence[Item]) -> int:
        """Tokens that a reply to these items may have: up to the end of the window, or to the switch of its RoPE."""
        decoder = self._engine.family.decoder
        limit = decoder.max_positions if self._is_long(items) else decoder.switch or decoder.max_positions
        return limit - max(count_tokens(items), count_positions(items))

    def _is_long(self, items: Sequence[Item]) -> bool:
        return self._engine.family.decoder.is_long(count_positions(items))

    def run(self, items: Sequence[Item]) -> Assembled:
        """Put the items together in the pool and compute the logits after the last one.

        Where the computation fails, the spans before the first computed one stay in the pool.

        Raises WindowTooLongError before any work.
        """
        residence, start = self.residence, perf_counter()
        steps, loaded = self._resolve(items)
        planned = perf_counter()
        with residence.changing():
            residents, batch, stale = self._rebuild(steps, loaded)
            num_ready = next(i for i, step in enumerate(steps) if step.origin == "computed" or step.refresh)
            residence.residents, residence.is_long = residents[:num_ready], self._is_long(items)
            residence.unsettled = True
        rebuilt = perf_counter()
        num_layers = self._engine.family.decoder.kv_shape.num_layers
        with Progress("computing", len(stale) + len(batch) + num_layers) as progress:
            outcome = self._engine.prefill(residence.pool, batch, progress.advance, stale)
        residence.residents = residents
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
        residence = self.residence
        if residence.pool.num_free == 0:
            with residence.changing():
                residence.pool.reserve(DECODE_BLOCK)
        last, num_before = residence.residents[-1], len(residence.reply)
        slots = residence.pool.allocate(1)
        position, order = last.position + last.item.run.extent, last.order + len(last.item.run.token_ids)
        placed = Placed(TextRun((token,)), slots, position + num_before, order + num_before)
        logits = self._engine.prefill(residence.pool, [placed]).logits
        residence.reply.append((token, slots))
        return logits

    def settle(self, keep: int | None = None) -> None:
        """After an answer, remember the computed chunks and give back the pool's surplus.

        keep: number of spans that stay in the pool; None keeps all.
        """
        residence = self.residence
        self._remember(residence.pool, [resident for resident in residence.residents if resident.origin == "computed"])
        residence.settle(keep)

    def heal(self, items: Sequence[Item], tick: Tick, *, beside: bool) -> int:
        """Compute the first of these items that are not exact in their places; returns the number of tokens, often 0.

        beside: as of Healing.heal(). tick: called once per run and per layer; what it raises leaves everything as it
        was.
        """
        pool, healed = self._healing.heal(items, tick, beside=beside)
        self._remember(pool, healed)
        return count_tokens([resident.item for resident in healed])

    def _remember(self, pool: KVPool, residents: Sequence[Resident]) -> None:
        # Stored KV has the frequencies of short windows.
        for resident in () if self.residence.is_long else residents:
            if isinstance(run := resident.item.run, Chunk):
                # read() copies: another span may take the slots before the worker comes to this chunk.
                job = self._library.remember(run, pool.read(resident.slots), resident.seen)
                self._jobs += [job] if job else []

    def count_written(self) -> int:
        """Bytes that the library handed to the store for this window since the last call."""
        done = [job for job in self._jobs if job.done]
        self._jobs = [job for job in self._jobs if job not in done]
        return sum(job.result or 0 for job in done)

    def check_length(self, items: Sequence[Item]) -> None:
        """Raise WindowTooLongError when these items are more than the model was built for."""
        limit = self._engine.family.decoder.max_positions
        num_tokens, num_positions = count_tokens(items), count_positions(items)
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
        residence, pool = self.residence, self.residence.pool
        reused = {id(step.resident) for step in steps}
        for resident in residence.residents:
            if id(resident) not in reused:
                pool.free(resident.slots)
        present = set(map(id, residence.residents))
        num_new = count_tokens([step.item for step in steps if id(step.resident) not in present])
        pool.reserve(num_new + DECODE_BLOCK)
        num_positions = count_positions([step.item for step in steps])
        residents: list[Resident] = []
        batch: list[Placed] = []
        stale: list[Placed] = []
        for index, step in enumerate(steps):
            run = step.item.run
            if step.resident is None:
                slots = pool.allocate(len(run.token_ids))
            elif id(step.resident) in present:
                slots = step.resident.slots
            else:
                assert residence.ahead
                [slots] = pool.take(residence.ahead.pool, [step.resident.slots])
            placed = Placed(run, slots, step.position, step.order)
            if step.origin == "computed":
                batch.append(placed)
            elif step.origin in ("recalled", "blind"):
                self._engine.load(pool, placed, loaded[index].base, loaded[index].factors)
            elif step.origin == "moved":
                self._engine.relocate(pool, placed, num_positions)
            stale += [placed] if step.refresh else []
            residents.append(_resident(step, slots))
        return residents, batch, stale


def _resident(step: Step, slots: Slots) -> Resident:
    """The resident that a step makes. KV that was taken over keeps what it has seen."""
    seen = step.evidence.seen if step.evidence else step.antecedents
    refreshed = step.resident.refreshed if step.resident else None
    if step.refresh:
        seen, refreshed = replace(seen, exact=False), step.antecedents.chunks
    return Resident(step.item, slots, step.position, step.order, seen, step.origin, step.exact, step.stale, refreshed)
