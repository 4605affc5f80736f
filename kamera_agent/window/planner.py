"""Planning a turn: where the KV of every item of the window comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import Chunk, Key, Run
from kamera_agent.config import Settings
from kamera_agent.window.evidence import Evidence, Stale, best_of, grade
from kamera_agent.window.layout import Place
from kamera_agent.window.partners import find_partners
from kamera_agent.window.resident import Resident, num_begun, num_common, num_settled
from kamera_agent.window.step import Near, Step

# The share of its tokens from which on a new image is computed, whatever it resembles.
CHANGED = 0.5


class Finder(Protocol):
    """What planning asks of a library."""

    def expect(self, chunks: Sequence[Key]) -> None: ...

    def evidence(self, chunk: Key) -> Sequence[Evidence]: ...


class Regime(NamedTuple):
    """Which RoPE frequencies hold in a window of a model that switches them beyond some length (longrope).

    long: the window is beyond that length; stored KV has the frequencies of short windows.
    switched: the KV in the pool has the frequencies of the other side.
    """

    long: bool = False
    switched: bool = False


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides for every place of a coming window where the KV of its item comes from.

    computed_whole: whether a run can be computed only as a whole.
    changed: the tokens of an image, by index, that another image does not give; None where it gives none.
    regime: KV of other frequencies is computed anew. unavailable: digests of chunks that the store failed to read.
    """

    settings: Settings
    library: Finder
    computed_whole: Callable[[Run], bool]
    changed: Callable[[Chunk, Chunk], Sequence[int] | None]
    regime: Regime
    unavailable: frozenset[bytes]

    def steps(
        self, places: Sequence[Place], residents: Sequence[Resident], spares: Sequence[Resident], *, answering: bool
    ) -> list[Step | Resident]:
        """A step for every place; for a text that stays as it is, its resident.

        residents: those of the present window, in order. spares: those beside it.
        answering: the last item is computed in any case, because the answer needs the logits after it.
        """
        steps: list[Step | Resident] = [*residents[: self._num_settled(places, residents, spares)]]
        places, residents = places[len(steps) :], residents[len(steps) :]
        exact = all(step.exact for step in steps)
        found = find_partners(places, residents, spares)
        partners = list(zip(places, found, strict=True))
        # What was in the place of the first change, unless it is needed elsewhere.
        left = [resident for resident in residents[num_common(places, residents) :][:1] if resident not in found]
        # In one go: each question to a store on another machine costs a round trip.
        self.library.expect([chunk.key for place, resident in partners if (chunk := self._asked(place, resident))])
        for place, resident in partners:
            if answering and place is places[-1]:
                step: Step | Resident = Step(place, "computed", exact)
            elif isinstance(run := place.item.run, Chunk):
                step = self._chunk(Step(place, "computed", exact), run, resident, residents)
            else:
                step = self._text(place, resident, exact) if resident else self._rewritten(place, left, exact)
            steps.append(step)
            exact = exact and step.exact
        return steps

    def _num_settled(self, places: Sequence[Place], residents: Sequence[Resident], spares: Sequence[Resident]) -> int:
        """How many texts at the beginning stay as they are, without a look at each of them."""
        if self.regime.switched:
            return 0
        # The last place may have to be computed.
        num_same = num_settled(places[:-1], residents)
        may_be_better = self.settings.fidelity == "exact" or bool(spares)
        if may_be_better and not all(resident.exact for resident in residents[:num_same]):
            return 0
        return num_same

    def _text(self, place: Place, resident: Resident, exact: bool) -> Step | Resident:
        """What the pool has of a text; the store has nothing."""
        is_exact = _is_exact(resident.seen, place.before)
        if not is_exact and self.settings.fidelity == "exact":
            return Step(place, "computed", exact)
        if self.regime.switched:
            return Step(place, "computed", exact, switched=True)
        if resident.place is place and (resident.origin, resident.exact) == ("kept", is_exact):
            return resident
        return Step(place, "kept" if resident.place.is_at(place) else "moved", is_exact, resident)

    def _rewritten(self, place: Place, left: Sequence[Resident], exact: bool) -> Step:
        """A new text, which keeps what its beginning has in common with an exact one that was in its place."""
        step, run = Step(place, "computed", exact), place.item.run
        if not exact or any(self.regime) or self.computed_whole(run):
            return step
        for old in left:
            if (num_same := num_begun(place, old)) and _is_exact(old.seen, place.before):
                changed = range(num_same, len(run.token_ids))
                return replace(step, origin="kept", resident=old, near=Near(old, changed))
        return step

    def _chunk(self, step: Step, chunk: Chunk, resident: Resident | None, others: Sequence[Resident]) -> Step:
        """The best KV that the pool or the store has of a chunk, where the settings admit it; else the step.

        others: all residents of the present window.
        """
        present, fidelity, regime = step.place.before, self.settings.fidelity, self.regime
        candidates = [Evidence(resident.seen, approximate=not resident.seen.exact)] if resident else []
        if self._asked(step.place, resident):
            candidates += self.library.evidence(chunk.key)
        if fidelity == "exact":
            candidates = [evidence for evidence in candidates if _is_exact(evidence.seen, present)]
        # KV in the pool has the frequencies of the last turn, stored KV those of short windows.
        usable = [evidence for evidence in candidates if not (regime.long if evidence.base else regime.switched)]
        if not usable:
            return replace(step, switched=True) if candidates else self._near(step, chunk, others)
        best = best_of(usable, present)
        taken = replace(step, origin="recalled", exact=_is_exact(best.seen, present), evidence=best)
        if resident and best.base is None:
            taken = replace(taken, origin="kept" if resident.place.is_at(step.place) else "moved", resident=resident)
        if taken.exact:
            return taken
        taken = replace(taken, stale=Stale.of(best.seen, present))
        unknown = best.base is not None and grade(best.seen, present) == "other"
        if fidelity == "blind":
            return replace(taken, origin="blind") if unknown else taken
        match self.settings.stale:
            case "refresh" if _is_out_of_date(taken):
                whole = self.computed_whole(chunk) or _is_strange(best, present)
                return step if whole else replace(taken, refresh=True)
            case "compute" if taken.stale and taken.stale.of_chunks:
                return step
            case "keep" if unknown:
                # What was in the window stays. A record that has seen other chunks, as it is, would be blind reuse.
                return step
        return taken

    def _asked(self, place: Place, resident: Resident | None) -> Chunk | None:
        """The chunk at a place, if the store is asked for it."""
        run = place.item.run
        if not isinstance(run, Chunk) or run.digest in self.unavailable:
            return None
        # Nothing is better than exact KV in the pool.
        is_settled = resident is not None and _is_exact(resident.seen, place.before) and not self.regime.switched
        return None if is_settled else run

    def _near(self, step: Step, chunk: Chunk, residents: Sequence[Resident]) -> Step:
        """The step of a chunk of which nothing is known, with KV of an image that it resembles; the step for none."""
        settings = self.settings
        if settings.near == "off" or settings.fidelity == "exact" or any(self.regime) or self.computed_whole(chunk):
            return step
        found = [
            Near(resident, changed)
            for resident in residents
            if isinstance(other := resident.place.item.run, Chunk)
            and other.digest != chunk.digest
            and (changed := self.changed(chunk, other)) is not None
        ]
        # Among equals the last one: what is before it is most like what is before the new one.
        nearest = min(reversed(found), key=lambda near: len(near.changed), default=None)
        if nearest is None or len(nearest.changed) >= CHANGED * len(chunk.token_ids):
            return step
        return replace(step, origin="tiled", exact=False, near=nearest)


def _is_exact(seen: Antecedents, present: Antecedents) -> bool:
    return seen.exact and seen.chain == present.chain


def _is_strange(evidence: Evidence, present: Antecedents) -> bool:
    """Whether stored KV saw other chunks, and none of those before its place: refreshing repairs too little of it."""
    seen = set(evidence.seen.chunks)
    return evidence.base is not None and bool(seen) and seen.isdisjoint(present.chunks)


def _is_out_of_date(step: Step) -> bool:
    """Whether a chunk was computed after other chunks than those before it, and was not refreshed among these."""
    if step.resident and step.resident.refreshed is not None:
        return step.resident.refreshed != step.place.before.chunks
    return step.stale is not None and step.stale.of_chunks
