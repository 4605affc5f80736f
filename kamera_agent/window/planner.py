"""Planning a turn: where the KV of every item of the window comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from blake3 import blake3

from kamera_agent.chunk import Antecedents, Chunk, Run
from kamera_agent.config import Fidelity
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.window.layout import Item
from kamera_agent.window.library import Match
from kamera_agent.window.plan import Origin, Plan, PlanRow


class Finder(Protocol):
    """What planning asks of a library."""

    def find(self, chunk: Chunk, antecedents: Antecedents) -> Match | None: ...

    def has_canonical(self, chunk: Chunk) -> bool: ...


class Regime(NamedTuple):
    """Which RoPE frequencies hold in a window of a model that switches them beyond some length (longrope).

    long: the window is beyond that length; stored KV has the frequencies of short windows.
    switched: the KV in the pool has the frequencies of the other side.
    """

    long: bool = False
    switched: bool = False


SHORT = Regime()


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """An item whose KV is in the pool.

    position, order: of its first token. Positions count on the RoPE axes, where an image takes fewer than it has
        tokens; orders count tokens.
    chain: digest of all runs up to and including this one, as they were when its KV was computed.
    exact_then: whether that KV was computed over exact spans only, so that it is exact wherever the chain recurs.
    origin, exact: as of the last turn.
    """

    item: Item
    slots: Slots
    position: int
    order: int
    chain: bytes
    exact_then: bool
    origin: Origin
    exact: bool


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An item, its place in the coming window, and where its KV comes from.

    antecedents: the runs before it in the coming window.
    resident: the KV that a kept or moved item takes over. match: the patch of a recalled one.
    switched: reusable KV exists, but it has other RoPE frequencies.
    """

    item: Item
    position: int
    order: int
    origin: Origin
    exact: bool
    chain: bytes
    antecedents: Antecedents
    resident: Resident | None = None
    match: Match | None = None
    switched: bool = False


def make_plan(steps: Sequence[Step]) -> Plan:
    """The printable form of steps."""
    return Plan(tuple(map(_row, steps)))


def _row(step: Step) -> PlanRow:
    row = PlanRow(
        id=step.item.id,
        kind=step.item.kind,
        num_tokens=len(step.item.run.token_ids),
        position=step.position,
        moved_from=step.resident.position if step.resident else None,
        origin=step.origin,
        exact=step.exact,
    )
    match = step.match
    if match is None:
        return row
    return replace(
        row, match=match.grade, error=match.error, text_match=match.text_match, approximate=match.approximate
    )


def plan_steps(
    items: Sequence[Item],
    residents: Sequence[Resident],
    fidelity: Fidelity,
    library: Finder,
    *,
    answering: bool,
    unavailable: frozenset[bytes] = frozenset(),
    regime: Regime = SHORT,
) -> list[Step]:
    """Decide for every item where its KV comes from.

    items: the coming window, laid out. residents: the present one, in order.
    answering: the last item is computed in any case, because the answer needs the logits after it.
    unavailable: digests of chunks that the store failed to read. regime: KV of other frequencies is computed anew.
    """
    num_kept, partners = _match_residents(items, residents)
    steps: list[Step] = []
    position = order = 0
    chain = b""
    for index, item in enumerate(items):
        chain = link(chain, item.run)
        step = Step(item, position, order, "computed", all(s.exact for s in steps), chain, _antecedents(steps))
        if not (answering and index == len(items) - 1):
            computed = step
            step = _reuse(step, partners.get(index), index < num_kept, fidelity)
            if regime.switched and step.resident:
                step = replace(computed, switched=True)
            if step.origin == "computed" and isinstance(item.run, Chunk) and item.run.digest not in unavailable:
                step = _recall(step, item.run, fidelity, library)
                if regime.long and step.origin != "computed":
                    step = replace(computed, switched=True)
        steps.append(step)
        position += item.run.extent
        order += len(item.run.token_ids)
    return steps


def link(chain: bytes, run: Run) -> bytes:
    """The chain of a run that follows `chain`."""
    return blake3(chain + run.digest).digest(16)


def _antecedents(steps: Sequence[Step]) -> Antecedents:
    # The anchor is before every chunk, so it tells none apart.
    before = steps[1:]
    return Antecedents(
        tuple(step.item.run.digest for step in before if isinstance(step.item.run, Chunk)),
        tuple(step.item.run.digest for step in before if not isinstance(step.item.run, Chunk)),
        not all(step.exact for step in steps),
    )


def _reuse(step: Step, resident: Resident | None, kept: bool, fidelity: Fidelity) -> Step:
    """Take over KV from the pool where the fidelity admits it."""
    if resident is None:
        return step
    exact = resident.exact_then and resident.chain == step.chain
    if fidelity == "exact" and not exact:
        return step
    return replace(step, origin="kept" if kept else "moved", exact=exact, resident=resident)


def _recall(step: Step, chunk: Chunk, fidelity: Fidelity, library: Finder) -> Step:
    """Take a chunk from the store where the fidelity admits it."""
    if fidelity == "exact":
        return step
    if match := library.find(chunk, step.antecedents):
        return replace(step, origin="recalled", exact=False, match=match)
    if fidelity == "blind" and library.has_canonical(chunk):
        return replace(step, origin="blind", exact=False)
    return step


def _match_residents(items: Sequence[Item], residents: Sequence[Resident]) -> tuple[int, dict[int, Resident]]:
    """Pair items with KV in the pool: (length of the unchanged beginning, resident by index of the item).

    After that beginning an item takes the resident of its own id first; a chunk then takes any other of the same
    content, in order. A text of another id is computed: that is cheap, and it was said elsewhere for another reason.
    """
    num_kept = 0
    for item, resident in zip(items, residents, strict=False):
        if item.run.digest != resident.item.run.digest:
            break
        num_kept += 1
    partners = dict(enumerate(residents[:num_kept]))
    unpaired = list(residents[num_kept:])
    for same_id in (True, False):
        for index in range(num_kept, len(items)):
            item = items[index]
            if index in partners or not (same_id or isinstance(item.run, Chunk)):
                continue
            if taken := _take(unpaired, item, same_id):
                partners[index] = taken
    return num_kept, partners


def _take(residents: list[Resident], item: Item, same_id: bool) -> Resident | None:
    for resident in residents:
        if resident.item.run.digest == item.run.digest and (not same_id or resident.item.id == item.id):
            residents.remove(resident)
            return resident
    return None
