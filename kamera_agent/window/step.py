"""Steps: where the KV of an item comes from in the coming turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import Chunk
from kamera_agent.window.evidence import Evidence, Stale, grade, text_match
from kamera_agent.window.layout import Place
from kamera_agent.window.plan import Origin, Plan, PlanRow
from kamera_agent.window.resident import Resident


class Near(NamedTuple):
    """An image in the pool that a new one resembles, or a text that begins as a new one does.

    changed: indices of the tokens that it does not give.
    """

    resident: Resident
    changed: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A place in the coming window, and where the KV of its item comes from.

    resident: the KV that a kept or moved item takes over. evidence: of a chunk whose KV is taken over or recalled.
    stale: how its antecedents differ from those of its evidence; None where they do not, and for texts.
    refresh: whether some of its tokens are computed again. refreshed: the share of its KV, in tokens times layers, that
        was; 0.0 before the step is carried out.
    switched: reusable KV exists, but it has other RoPE frequencies.
    near: of a tiled item, the image whose KV its unchanged tokens take; of a kept text, the resident where the text has
        changed after its beginning.
    """

    place: Place
    origin: Origin
    exact: bool
    resident: Resident | None = None
    evidence: Evidence | None = None
    stale: Stale | None = None
    refresh: bool = False
    refreshed: float = 0.0
    switched: bool = False
    near: Near | None = None

    @property
    def num_begun(self) -> int:
        """How many tokens a kept item takes over from its resident: all, or the beginning of a text."""
        return len(self.place.item.run.token_ids) - (len(self.near.changed) if self.near else 0)

    @property
    def seen(self) -> Antecedents:
        """What the KV was computed after."""
        if self.evidence:
            return self.evidence.seen
        return self.resident.seen if self.resident else replace(self.place.before, exact=self.exact)

    @property
    def row(self) -> PlanRow:
        """Its printable form."""
        item, evidence, before = self.place.item, self.evidence, self.place.before
        row = PlanRow(
            id=item.id,
            kind=item.kind,
            num_tokens=len(item.run.token_ids),
            position=self.place.position,
            moved_from=self.resident.place.position if self.resident else None,
            origin=self.origin,
            exact=self.exact,
        )
        if self.near:
            share = len(self.near.changed) / row.num_tokens
            return replace(row, near=self.near.resident.place.item.id, refreshed=share)
        if evidence is None or not isinstance(item.run, Chunk):
            return row
        return replace(
            row,
            match=grade(evidence.seen, before),
            error=evidence.error,
            text_match=text_match(evidence.seen, before),
            approximate=evidence.approximate,
            stale=self.stale,
            refresh=self.refresh,
            refreshed=self.refreshed,
        )


def as_carried_out(steps: Sequence[Step | Resident], shares: Sequence[float]) -> list[Step | Resident]:
    """The steps after their forward pass.

    shares: what was computed of each refreshed span, in order. One that was computed whole has the origin "computed".
    """
    left, exact = iter(shares), True
    done: list[Step | Resident] = []
    for step in steps:
        if isinstance(step, Step) and step.refresh:
            share = next(left)
            step = Step(step.place, "computed", exact) if share == 1 else replace(step, refreshed=share)
        elif isinstance(step, Step) and step.origin == "computed":
            step = replace(step, exact=exact)
        done.append(step)
        exact = exact and step.exact
    return done


def make_plan(steps: Sequence[Step | Resident]) -> Plan:
    """The printable form of steps."""
    return Plan(tuple(step.row for step in steps))
