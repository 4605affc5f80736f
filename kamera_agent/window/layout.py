"""Layout: from the items that a window holds to the runs of tokens that the model sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import is_
from sys import getsizeof
from typing import NamedTuple
from weakref import WeakKeyDictionary

from kamera_agent.antecedents import Antecedents
from kamera_agent.chunk import Chunk, Run, TextRun
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.tokens import Marked
from kamera_agent.window.plan import Kind

# What an item takes besides what is counted in full, roughly.
ITEM_BYTES = 4096
# A Python int, and its place in a tuple.
TOKEN_BYTES = 36
# A range that a marked text calls its own, with its two ends.
RANGE_BYTES = 112


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Item:
    """A run in a window, under an id: a content of the caller, a reply, or what the chat format puts between them.

    kind: "anchor" and "turn" are the chat format's own; a layout adds them.
    text: what the run was tokenised from; empty for pictures and for the chat format's own.
    new_turn: whether the item begins a turn even after an item of the same role, as a reply does.
    """

    id: str
    kind: Kind
    role: str
    run: Run
    text: str = ""
    new_turn: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes that a dropped item takes while it is kept for recall."""
        num_bytes = ITEM_BYTES + getsizeof(self.text) + TOKEN_BYTES * len(self.run.token_ids)
        if isinstance(self.text, Marked):
            num_bytes += RANGE_BYTES * len(self.text.own)
        if isinstance(self.run, Chunk):
            offsets = self.run.offsets.untyped_storage().nbytes()
            num_bytes += self.run.pixels.nbytes + offsets + getsizeof(self.run.key.material)
        return num_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """An item in its place in a window.

    position, order: of its first token. Positions count on the RoPE axes, where an image takes fewer than it has
        tokens; orders count tokens.
    before: the runs before it.
    """

    item: Item
    position: int
    order: int
    before: Antecedents

    @property
    def end_position(self) -> int:
        """The position after it."""
        return self.position + self.item.run.extent

    @property
    def end_order(self) -> int:
        """The order after it: the number of tokens up to its end."""
        return self.order + len(self.item.run.token_ids)

    def is_at(self, other: Place) -> bool:
        """Whether it is where another place is."""
        return self.position == other.position and self.order == other.order

    def next(self, item: Item) -> Place:
        """The place of an item that follows it."""
        return Place(item, self.end_position, self.end_order, self.before.then(self.item.run))


class _LaidOut(NamedTuple):
    """Items and their places. roles, ends: the last role, and the number of places, after the first n items."""

    items: Sequence[Item]
    places: list[Place]
    roles: list[str | None]
    ends: list[int]


class Layout:
    """Lays out the items of one window. What begins as it did the last time is not laid out again."""

    def __init__(self, family: Family) -> None:
        self._chat = family.chat
        anchor = Item("anchor", "anchor", "system", TextRun(family.chat.anchor_ids))
        # Replaced as a whole: a thread that heals and one that looks at the window lay out, too.
        self._last = _LaidOut((), [Place(anchor, 0, 0, Antecedents())], [None], [1])
        self._marks: dict[tuple[int, ...], TextRun] = {}
        # Items as they are after a space.
        self._spaced: WeakKeyDictionary[Item, Item] = WeakKeyDictionary()

    def places(self, items: Sequence[Item], reply_id: str | None = None) -> Sequence[Place]:
        """The anchor, the items in order, and a run of markup wherever a turn begins.

        items: the first one is the system prompt. Items without tokens add their turns only; a system prompt adds none.
        reply_id: id of the reply about to be generated; its turn is opened at the end. None leaves the last turn open.
        """
        last = self._last
        num_same = sum(takewhile(bool, map(is_, items, last.items)))
        roles, ends = last.roles[: num_same + 1], last.ends[: num_same + 1]
        places, role = last.places[: ends[-1]], roles[-1]
        for number, item in enumerate(items[num_same:], start=num_same):
            is_empty = not item.run.token_ids
            if not (is_empty and number == 0):
                if item.role != role or item.new_turn:
                    text_follows = isinstance(item.run, TextRun) and not is_empty
                    self._open_turn(places, item.id, role, item.role, text_follows=text_follows)
                    if item.kind == "text" and not is_empty and self._chat.leaves_space(role, item.role):
                        item = self._after_space(item)
                    role = item.role
                if not is_empty:
                    places.append(places[-1].next(item))
            roles.append(role)
            ends.append(len(places))
        self._last = _LaidOut(tuple(items), places, roles, ends)
        if reply_id is None:
            return places
        opened = [*places]
        self._open_turn(opened, reply_id, role, "assistant", text_follows=True)
        return opened

    def _open_turn(
        self, places: list[Place], first_id: str, before: str | None, role: str, *, text_follows: bool
    ) -> None:
        """Add the markup that opens a turn; nothing where the anchor has opened it."""
        if token_ids := self._chat.turn(before, role, text_follows=text_follows):
            run = self._marks.setdefault(token_ids, TextRun(token_ids))
            places.append(places[-1].next(Item(f"{first_id}:turn", "turn", role, run)))

    def _after_space(self, item: Item) -> Item:
        """A text after markup that ends with a space, which the tokenizer joins to the first word."""
        if item not in self._spaced:
            self._spaced[item] = replace(item, run=TextRun(self._chat.spaced(item.text)))
        return self._spaced[item]


def count_tokens(items: Iterable[Item]) -> int:
    """Tokens of items."""
    return sum(len(item.run.token_ids) for item in items)
