"""A seeded source of windows: screens that belong together, and shots of one scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from blake3 import blake3

from kamera_agent.pocket.screen import Card, Mark, Picture, Screen, Shift, Shot
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.words import COLOURS, ITEMS, NUMBERS, PERSONS, ROOMS, SHAPES, TITLES, ZONES

# changes: two screens of prices, before and after. links: owners, rooms and keys, the values of one being the labels of
# the next. moves: shots of one scene. both: two of these stories, two pictures each. day: all of them, in up to twelve
# pictures, with screens that are looked at again.
Story = Literal["changes", "links", "moves", "both", "day"]
STORIES: tuple[Story, ...] = get_args(Story)

CLASSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prices": (ITEMS, NUMBERS),
    "owners": (ITEMS, PERSONS),
    "rooms": (PERSONS, ROOMS),
    "keys": (ROOMS, NUMBERS),
}
MAX_CHANGES = 3
# The most screens and shots of a day.
DAY_SCREENS, DAY_SHOTS = 8, 8
# Shares of the days that have both screens of prices for certain, and whose two screens are one page that changes.
COMPARED, SAME_PAGE = 0.6, 0.6
# Training never shows one of this many label-value pairs.
HELD_OUT = 10


@dataclass(frozen=True, slots=True)
class Size:
    """Size of screens and shots: a grid of columns x rows, and the number of cards or marks.

    num_words: cards use the first num_words labels and values of their kind. None: all.
    """

    grids: tuple[tuple[int, int], ...] = ((8, 6), (9, 6), (8, 7), (7, 7), (10, 5))
    min_cards: int = 8
    max_cards: int = 14
    min_marks: int = 3
    max_marks: int = 5
    num_words: int | None = None


FULL_SIZE = Size()


def is_held_out(label: str, value: str) -> bool:
    """Whether a pair is held out: training never shows it on a card."""
    return blake3(f"{label}={value}".encode()).digest(1)[0] % HELD_OUT == 0


class World:
    """Draws windows from a random generator. The same state of the generator gives the same windows."""

    def __init__(self, rng: np.random.Generator, size: Size = FULL_SIZE, looks: Looks = LOOKS["train"]) -> None:
        self._rng = rng
        self._size = size
        self._looks = looks

    def window(self, story: Story, num_pictures: int) -> list[Picture]:
        """The pictures of a story in random order."""
        pictures = self.tell(story, num_pictures)
        return [pictures[index] for index in self._rng.permutation(len(pictures))]

    def tell(self, story: Story, num_pictures: int) -> list[Picture]:
        """A story in 1 to 4 pictures. If there is room, a screen of another kind is among them.

        "changes" takes at least 2 pictures, "both" takes 4, "moves" takes any number of shots, in order of time, and
        "day" takes 2 to 12 pictures, its shots last.
        """
        titles = self._pick(TITLES, len(TITLES))
        tell = {
            "changes": self._changes,
            "links": self._links,
            "moves": self._moves,
            "both": self._both,
            "day": self._day,
        }[story]
        return tell(num_pictures, titles)

    def _changes(self, num_pictures: int, titles: Sequence[str], same_page: float = 0.0) -> list[Picture]:
        """same_page: share of the windows whose second screen has title, look and places of the first."""
        before = self._screen("prices", titles[0], self._pairs("prices", self._num_cards()))
        values = {card.label: card.value for card in before.cards}
        # Only a window with a single change has a question of the task diff.
        num_changes = 1 if self._rng.random() < 0.4 else int(self._rng.integers(MAX_CHANGES + 1))
        for label in self._pick(list(values), num_changes):
            values[label] = self._value("prices", label, taken={values[label]})
        if same_page and self._rng.random() < same_page:
            after = replace(before, cards=tuple(replace(card, value=values[card.label]) for card in before.cards))
        else:
            after = self._screen("prices", titles[1], values)
        pictures: list[Picture] = [before, after]
        kinds = self._pick(["owners", "rooms", "keys"], num_pictures - 2)
        for kind, title in zip(kinds, titles[2:], strict=False):
            pictures.append(self._screen(kind, title, self._pairs(kind, self._num_cards())))
        return pictures

    def _links(self, num_pictures: int, titles: Sequence[str]) -> list[Picture]:
        owners = self._pairs("owners", self._num_cards())
        num_links = int(self._rng.integers(3, 6))
        rooms = self._pairs("rooms", self._num_cards(), first=self._pick(list(owners.values()), num_links))
        linked = [rooms[person] for person in rooms if person in owners.values()]
        keys = self._pairs("keys", self._num_cards(), first=self._pick(linked, int(self._rng.integers(3, 6))))
        tables = [("owners", owners), ("rooms", rooms), ("keys", keys)]
        if num_pictures == 1:
            tables = [tables[self._rng.integers(3)]]
        elif num_pictures == 2:
            del tables[int(self._rng.choice([0, 2]))]
        elif num_pictures > 3:
            tables.append(("prices", self._pairs("prices", self._num_cards())))
        return [self._screen(kind, title, table) for (kind, table), title in zip(tables, titles, strict=False)]

    def _both(self, num_pictures: int, titles: Sequence[str]) -> list[Picture]:
        del num_pictures
        first, second = self._pick([self._changes, self._links, self._moves], 2)
        return [*first(2, titles[:2]), *second(2, titles[2:])]

    def _day(self, num_pictures: int, titles: Sequence[str]) -> list[Picture]:
        fewest = max(num_pictures - DAY_SCREENS, 0)
        num_shots = int(self._rng.integers(fewest, min(num_pictures - 2, DAY_SHOTS) + 1))
        prices, links = self._changes(2, titles, SAME_PAGE), self._links(3, titles[2:])
        pages = [*prices, *self._pick(links, 3)] if self._rng.random() < COMPARED else self._pick([*prices, *links], 5)
        seen = pages[: num_pictures - num_shots]
        again = self._rng.integers(len(pages), size=num_pictures - num_shots - len(seen))
        return [*seen, *(pages[index] for index in again), *self._moves(num_shots, ())]

    def _moves(self, num_pictures: int, titles: Sequence[str]) -> list[Picture]:
        del titles
        columns, rows = self._grid()
        zones = self._zones(columns, rows)
        num_marks = int(self._rng.integers(self._size.min_marks, self._size.max_marks + 1))
        shapes = self._pick(SHAPES, num_marks)
        palettes = {shape: self._pick(COLOURS, len(COLOURS)) for shape in shapes}
        stages = dict.fromkeys(shapes, 0)
        shots: list[Picture] = []
        for _ in range(num_pictures):
            cells = self._pick(range(columns * rows), num_marks)
            marks = tuple(
                Mark(shape, palettes[shape][stages[shape]], int(cell), self._shift(), self._shift())
                for shape, cell in zip(shapes, cells, strict=True)
            )
            seed, jpeg = int(self._rng.integers(1 << 31)), int(self._rng.choice(self._looks.jpeg_qualities))
            shots.append(Shot(columns, rows, zones, marks, seed, jpeg))
            for shape in shapes:
                stages[shape] = min(stages[shape] + int(self._rng.random() < 0.5), len(COLOURS) - 1)
        return shots

    def _screen(self, kind: str, title: str, table: Mapping[str, str]) -> Screen:
        columns, rows = self._grid()
        labels = self._pick(list(table), len(table))
        cells = sorted(self._pick(range(columns, columns * rows), len(table)))
        cards = tuple(
            Card(label, table[label], int(cell), self._shift()) for label, cell in zip(labels, cells, strict=True)
        )
        return Screen(kind, title, self._shift(), columns, rows, cards, self._looks.draw(self._rng))

    def _pairs(self, kind: str, num_cards: int, first: Sequence[str] = ()) -> dict[str, str]:
        """Labels with values. first: labels that have to be among them. Values other than numbers are distinct."""
        labels = self._words(kind)[0]
        others = self._pick([label for label in labels if label not in first], max(num_cards - len(first), 0))
        table: dict[str, str] = {}
        for label in [*first, *others]:
            taken = set(table.values()) if CLASSES[kind][1] is not NUMBERS else set()
            table[label] = self._value(kind, label, taken)
        return table

    def _words(self, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        labels, values = CLASSES[kind]
        return labels[: self._size.num_words], values[: self._size.num_words]

    def _value(self, kind: str, label: str, taken: set[str]) -> str:
        admitted = [value for value in self._words(kind)[1] if value not in taken]
        fitting = [value for value in admitted if is_held_out(label, value) == self._looks.held_out_pairs]
        # A label can run out of held-out values. It takes any other value then.
        return str(self._rng.choice(fitting or admitted))

    def _zones(self, columns: int, rows: int) -> tuple[str, ...]:
        """Four zones that meet at a point near the middle."""
        names = self._pick(ZONES, 4)
        split_column, split_row = int(self._rng.integers(2, columns - 1)), int(self._rng.integers(1, rows - 1))
        return tuple(
            names[2 * (row >= split_row) + (column >= split_column)] for row in range(rows) for column in range(columns)
        )

    def _num_cards(self) -> int:
        return int(self._rng.integers(self._size.min_cards, self._size.max_cards + 1))

    def _grid(self) -> tuple[int, int]:
        return self._size.grids[self._rng.integers(len(self._size.grids))]

    def _shift(self) -> Shift:
        right, down = self._rng.integers(-self._looks.jitter, self._looks.jitter + 1, 2)
        return Shift(int(right), int(down))

    def _pick(self, pool: Sequence[Any], count: int) -> list[Any]:
        return [pool[index] for index in self._rng.permutation(len(pool))[:count]]
