"""Planning a turn: where the KV of every item of the window comes from."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import NamedTuple, Protocol

import torch

from kamera_agent.chunk import Antecedents, Chunk, Run, link
from kamera_agent.config import Settings
from kamera_agent.window.evidence import Evidence, Stale, grade, preference, text_match
from kamera_agent.window.layout import Item
from kamera_agent.window.plan import Origin, Plan, PlanRow
from kamera_agent.window.resident import Resident


class Finder(Protocol):
    """What planning asks of a library."""

    def evidence(self, chunk: Chunk) -> Sequence[Evidence]: ...


class Regime(NamedTuple):
    """Which RoPE frequencies hold in a window of a model that switches them beyond some length (longrope).

    long: the window is beyond that length; stored KV has the frequencies of short windows.
    switched: the KV in the pool has the frequencies of the other side.
    """

    long: bool = False
    switched: bool = False


SHORT = Regime()


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An item, its place in the coming window, and where its KV comes from.

    antecedents: the runs before it in the coming window.
    resident: the KV that a kept or moved item takes over. evidence: of a chunk whose KV is taken over or recalled.
    stale: how its antecedents differ from those of its evidence; None where they do not, and for texts.
    refresh: whether some of its tokens are computed again. refreshed: the share of its KV, in tokens times layers, that
        was; 0.0 before the step is carried out.
    switched: reusable KV exists, but it has other RoPE frequencies.
    """

    item: Item
    position: int
    order: int
    origin: Origin
    exact: bool
    antecedents: Antecedents
    resident: Resident | None = None
    evidence: Evidence | None = None
    stale: Stale | None = None
    refresh: bool = False
    refreshed: float = 0.0
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
    evidence = step.evidence
    if evidence is None or not isinstance(step.item.run, Chunk):
        return row
    return replace(
        row,
        match=grade(evidence.seen, step.antecedents),
        error=evidence.error,
        text_match=text_match(evidence.seen, step.antecedents),
        approximate=evidence.approximate,
        stale=step.stale,
        refresh=step.refresh,
        refreshed=step.refreshed,
    )


def plan_steps(
    items: Sequence[Item],
    residents: Sequence[Resident],
    settings: Settings,
    library: Finder,
    *,
    answering: bool,
    both_ways: Callable[[Run], torch.Tensor | None],
    unavailable: frozenset[bytes] = frozenset(),
    regime: Regime = SHORT,
) -> list[Step]:
    """Decide for every item where its KV comes from.

    items: the coming window, laid out. residents: those in the pool; those of the present window first, in order.
    answering: the last item is computed in any case, because the answer needs the logits after it.
    both_ways: the tokens of a run that also see later ones; None where there are none.
    unavailable: digests of chunks that the store failed to read. regime: KV of other frequencies is computed anew.
    """
    chains = [*accumulate((item.run for item in items), link, initial=b"")]
    partners = _match_residents(items, chains, residents)
    steps: list[Step] = []
    position = order = 0
    before = Antecedents()
    for index, item in enumerate(items):
        step = Step(item, position, order, "computed", before.exact, before)
        if not (answering and index == len(items) - 1):
            available = isinstance(item.run, Chunk) and item.run.digest not in unavailable
            stored = library.evidence(item.run) if isinstance(item.run, Chunk) and available else ()
            step = _source(step, partners.get(index), stored, settings, both_ways, regime)
        steps.append(step)
        position += item.run.extent
        order += len(item.run.token_ids)
        before = before.then(item.run, exact=step.exact)
    return steps


def _source(
    step: Step,
    resident: Resident | None,
    stored: Sequence[Evidence],
    settings: Settings,
    both_ways: Callable[[Run], torch.Tensor | None],
    regime: Regime,
) -> Step:
    """Take over the best KV that the pool or the store has, where the settings admit it."""
    present = step.antecedents
    candidates = [Evidence(resident.seen, approximate=not resident.seen.exact)] if resident else []
    candidates += stored
    if settings.fidelity == "exact":
        candidates = [evidence for evidence in candidates if _is_exact(evidence, present)]
    # KV in the pool has the frequencies of the last turn, stored KV those of short windows.
    usable = [evidence for evidence in candidates if not (regime.long if evidence.base else regime.switched)]
    if not usable:
        return replace(step, switched=bool(candidates))
    best = min(usable, key=lambda evidence: preference(evidence, present))
    taken = replace(step, origin="recalled", exact=_is_exact(best, present), evidence=best)
    if resident and best.base is None:
        in_place = (resident.position, resident.order) == (step.position, step.order)
        taken = replace(taken, origin="kept" if in_place else "moved", resident=resident)
    if taken.exact or not isinstance(step.item.run, Chunk):
        return taken
    taken = replace(taken, stale=Stale.of(best.seen, present))
    unknown = best.base is not None and grade(best.seen, present) == "other"
    if settings.fidelity == "blind":
        return replace(taken, origin="blind") if unknown else taken
    match settings.stale:
        case "refresh" if _is_out_of_date(taken):
            # Tokens that see later ones cannot be computed a few at a time.
            whole = both_ways(step.item.run) is not None or _is_strange(best, present)
            return step if whole else replace(taken, refresh=True)
        case "compute" if taken.stale and taken.stale.of_chunks:
            return step
        case "keep" if unknown:
            # What was in the window stays. A record that has seen other chunks, used as it is, would be blind reuse.
            return step
    return taken


def _is_exact(evidence: Evidence, present: Antecedents) -> bool:
    return evidence.seen.exact and evidence.seen.chain == present.chain


def _is_strange(evidence: Evidence, present: Antecedents) -> bool:
    """Whether KV saw other chunks, and none of those before its place: refreshing repairs too little of it.

    At the front of a window that slid, no others have come for those that left.
    """
    seen = evidence.seen.chunks
    return bool(seen) and not set(seen) & set(present.chunks) and bool(present.chunks or evidence.base)


def _is_out_of_date(step: Step) -> bool:
    """Whether a chunk was computed after other chunks than those before it, and was not refreshed among these."""
    if step.resident and step.resident.refreshed is not None:
        return step.resident.refreshed != step.antecedents.chunks
    return step.stale is not None and step.stale.of_chunks


def _match_residents(
    items: Sequence[Item], chains: Sequence[bytes], residents: Sequence[Resident]
) -> dict[int, Resident]:
    """Pair items with KV in the pool, by index of the item.

    KV that is exact in the item's place goes first, then what is in the unchanged beginning of the window, then the
    resident of the item's own id; a chunk then takes any other of the same content, in order. A text of another id is
    computed: that is cheap, and it was said elsewhere for another reason.
    """
    partners: dict[int, Resident] = {}

    def pair(keys: Mapping[int, object], key_of: Callable[[Resident], object]) -> None:
        """Give each item without a partner the first free resident with its key."""
        taken = set(map(id, partners.values()))
        waiting: dict[object, deque[Resident]] = defaultdict(deque)
        for resident in residents:
            if id(resident) not in taken:
                waiting[key_of(resident)].append(resident)
        for index, key in keys.items():
            if index not in partners and waiting[key]:
                partners[index] = waiting[key].popleft()

    runs = {index: item.run for index, item in enumerate(items)}
    pair(
        {index: (run.digest, chains[index]) for index, run in runs.items()},
        lambda resident: resident.seen.exact and (resident.item.run.digest, resident.seen.chain),
    )
    pairs = zip(items, residents, strict=False)
    beginning = takewhile(lambda pair: pair[0].run.digest == pair[1].item.run.digest, pairs)
    places = {id(resident): index for index, (_, resident) in enumerate(beginning)}
    pair({index: index for index in places.values()}, lambda resident: places.get(id(resident)))
    pair(
        {index: (item.id, item.run.digest) for index, item in enumerate(items)},
        lambda resident: (resident.item.id, resident.item.run.digest),
    )
    chunks = {index: run.digest for index, run in runs.items() if isinstance(run, Chunk)}
    pair(chunks, lambda resident: resident.item.run.digest)
    return partners
