"""Residents: items whose KV is in a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from kamera_agent.chunk import Antecedents
from kamera_agent.runtime.engine import Placed
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.window.evidence import Stale
from kamera_agent.window.layout import Item
from kamera_agent.window.plan import Origin


@dataclass(frozen=True, slots=True, eq=False)
class Resident:
    """An item whose KV is in the pool.

    position, order: of its first token. Positions count on the RoPE axes, where an image takes fewer than it has
        tokens; orders count tokens.
    seen: what its KV was computed after, and whether it is exact wherever that chain recurs.
    refreshed: the chunks before it when some of its tokens were computed again; None where none were.
    origin, exact, stale: as of the last turn.
    """

    item: Item
    slots: Slots
    position: int
    order: int
    seen: Antecedents
    origin: Origin
    exact: bool
    stale: Stale | None = None
    refreshed: tuple[bytes, ...] | None = None

    @property
    def placed(self) -> Placed:
        """Its run in its place."""
        return Placed(self.item.run, self.slots, self.position, self.order)

    def then(self, item: Item, slots: Slots) -> Resident:
        """The resident of an item that is computed right after it."""
        run = self.item.run
        position, order = self.position + run.extent, self.order + len(run.token_ids)
        return Resident(item, slots, position, order, self.seen.then(run, exact=self.exact), "computed", self.exact)


def num_common(items: Sequence[Item], residents: Sequence[Resident]) -> int:
    """How many runs items and residents have in common at their beginning."""
    pairs = zip(items, residents, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].run.digest == pair[1].item.run.digest, pairs))
