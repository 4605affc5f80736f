"""Items that a new list of contents may still take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from reprlib import repr as short

from kamera_agent.errors import UnknownSpanError
from kamera_agent.window.layout import Item


class Unused:
    """Items in order, each of which can be taken once.

    A list usually has them in the same order, so the first one that is left is looked at before all others.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = items
        self._left = {item.id: item for item in items}
        self._start = 0
        self._alike: dict[tuple[str, str | bytes], list[Item]] | None = None

    def named(self, item_id: str) -> Item:
        """The item of an id. Raises UnknownSpanError."""
        if item_id not in self._left:
            raise UnknownSpanError(f"{short(item_id)} is not a span of the window, or is named twice; add its content.")
        return self._left[item_id]

    def first(self, role: str, look: str | bytes, fits: Callable[[Item], bool]) -> Item | None:
        """The first item of a role and a look that fits. look: the text, or the digest of a picture."""
        while self._start < len(self._items) and self._items[self._start].id not in self._left:
            self._start += 1
        nearest = self._items[self._start : self._start + 1]
        if any((item.role, _look(item)) == (role, look) and fits(item) for item in nearest):
            return nearest[0]
        if self._alike is None:
            self._alike = defaultdict(list)
            for item in self._left.values():
                self._alike[item.role, _look(item)].append(item)
        alike = self._alike.get((role, look), ())
        return next((item for item in alike if item.id in self._left and fits(item)), None)

    def take(self, item: Item) -> bool:
        """Take an item; returns False for one that is not among these."""
        return self._left.pop(item.id, None) is not None


def _look(item: Item) -> str | bytes:
    return item.run.digest if item.kind in ("image", "frames") else item.text
