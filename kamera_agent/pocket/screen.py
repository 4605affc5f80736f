"""Screens and shots, the pictures that the pocket model reads, as plain data on a grid of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kamera_agent.pocket.style import Style

# Side of a cell in pixels. A cell is one visual token.
CELL = 56
# Times of the two frames of a shot, in seconds.
SHOT_TIMES = (0.0, 0.5)


class Cell(NamedTuple):
    """The content of a cell: up to three words, "" for none.

    A card has a label and a value, the first cell of a screen its title, a cell of a shot a shape, a colour and a zone.
    """

    first: str = ""
    second: str = ""
    third: str = ""


class Shift(NamedTuple):
    """Offset from the middle of a cell, in pixels."""

    right: int
    down: int


@dataclass(frozen=True, slots=True)
class Card:
    """A label over a value. cell: counted row by row from 0."""

    label: str
    value: str
    cell: int
    shift: Shift


@dataclass(frozen=True, slots=True)
class Screen:
    """A page: a bar with the title in the first row of cells, cards in the others.

    kind: the subject of its cards: "prices", "owners", "rooms" or "keys".
    """

    kind: str
    title: str
    title_shift: Shift
    columns: int
    rows: int
    cards: tuple[Card, ...]
    style: Style

    def cells(self) -> list[Cell]:
        """The content of the cells, row by row."""
        cells = [Cell(self.title), *[Cell()] * (self.columns * self.rows - 1)]
        for card in self.cards:
            cells[card.cell] = Cell(card.label, card.value)
        return cells


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked object. shift: its offset in the first frame. drift: its movement from the first frame to the second."""

    shape: str
    colour: str
    cell: int
    shift: Shift
    drift: Shift


@dataclass(frozen=True, slots=True)
class Shot:
    """Two frames of a scene: marked objects over zones.

    zones: one per cell, row by row. seed: seed of the grain. jpeg: JPEG quality.
    """

    columns: int
    rows: int
    zones: tuple[str, ...]
    marks: tuple[Mark, ...]
    seed: int
    jpeg: int

    def cells(self) -> list[Cell]:
        """The content of the cells, row by row."""
        marks: Mapping[int, Mark] = {mark.cell: mark for mark in self.marks}
        return [
            Cell(marks[index].shape, marks[index].colour, zone) if index in marks else Cell(third=zone)
            for index, zone in enumerate(self.zones)
        ]


Picture = Screen | Shot
