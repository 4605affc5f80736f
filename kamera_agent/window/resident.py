"""Residents: items whose KV is in a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from operator import and_, attrgetter, eq, is_

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import TextRun
from kamera_agent.runtime.engine import Placed
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.window.evidence import Stale
from kamera_agent.window.layout import Place
from kamera_agent.window.plan import Origin, PlanRow


@dataclass(frozen=True, eq=False)
class Resident:
    """An item whose KV is in the pool.

    seen: what its KV was computed after, and whether it is exact wherever that chain recurs.
    refreshed: the chunks before it when some of its tokens were computed again; None where none were.
    origin, exact, stale: as of the last turn.
    """

    place: Place
    slots: Slots
    seen: Antecedents
    origin: Origin
    exact: bool
    stale: Stale | None = None
    refreshed: tuple[bytes, ...] | None = None

    @property
    def placed(self) -> Placed:
        """Its run in its place."""
        return Placed(self.place.item.run, self.slots, self.place.position, self.place.order)

    @cached_property
    def is_settled(self) -> bool:
        """Whether it is a text that was kept in the last turn: in the same place, it stays as it is."""
        return self.origin == "kept" and isinstance(self.place.item.run, TextRun)

    @cached_property
    def row(self) -> PlanRow:
        """The row of a plan that leaves a text as it is."""
        item, position = self.place.item, self.place.position
        return PlanRow(item.id, item.kind, len(item.run.token_ids), position, position, self.origin, self.exact)


def num_common(places: Sequence[Place], residents: Sequence[Resident]) -> int:
    """How many runs places and residents have in common at their beginning."""
    num_same = 0
    for place, resident in zip(places, residents, strict=False):
        if place is not resident.place and place.item.run.digest != resident.place.item.run.digest:
            break
        num_same += 1
    return num_same


def num_begun(place: Place, resident: Resident) -> int:
    """How many tokens at its beginning a text of the caller has in common with the text of a resident."""
    run, old = place.item.run, resident.place.item.run
    if place.item.kind != "text" or not isinstance(old, TextRun):
        return 0
    return sum(takewhile(bool, map(eq, run.token_ids, old.token_ids)))


def num_settled(places: Sequence[Place], residents: Sequence[Resident]) -> int:
    """How many texts at the beginning of the window stay as they are."""
    # Without a step of Python for each: they are most of a long conversation.
    same_places = map(is_, places, map(attrgetter("place"), residents))
    return sum(takewhile(bool, map(and_, same_places, map(attrgetter("is_settled"), residents))))
