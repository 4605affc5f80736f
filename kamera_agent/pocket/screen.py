"""Screens and shots: what the pocket model looks at, as plain data on a grid of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kamera_agent.pocket.style import Style

# Pixels of a cell's side; one cell becomes one visual token.
CELL = 56
# Seconds of the two frames of a shot.
SHOT_TIMES = (0.0, 0.5)


class Cell(NamedTuple):
    """What one cell shows: up to three words, "" where there is none.

    A card: label, value. The first cell of a screen: its title. A cell of a shot: shape, colour, zone.
    """

    first: str = ""
    second: str = ""
    third: str = ""


class Shift(NamedTuple):
    """Pixels off the middle of a cell."""

    right: int
    down: int


@dataclass(frozen=True, slots=True)
class Card:
    """A label over a value, in a cell counted row by row from 0."""

    label: str
    value: str
    cell: int
    shift: Shift


@dataclass(frozen=True, slots=True)
class Screen:
    """A page: a bar with its title in the first row of cells, cards in the others.

    kind: what its cards are about: "prices", "owners", "rooms" or "keys".
    """

    kind: str
    title: str
    title_shift: Shift
    columns: int
    rows: int
    cards: tuple[Card, ...]
    style: Style

    def cells(self) -> list[Cell]:
        """What the cells show, row by row."""
        cells = [Cell(self.title), *[Cell()] * (self.columns * self.rows - 1)]
        for card in self.cards:
            cells[card.cell] = Cell(card.label, card.value)
        return cells


@dataclass(frozen=True, slots=True)
class Mark:
    """A marked object. shift: where it is in the first frame of the shot; drift: how far it has moved in the second."""

    shape: str
    colour: str
    cell: int
    shift: Shift
    drift: Shift


@dataclass(frozen=True, slots=True)
class Shot:
    """Two frames of a scene of marked objects over zones.

    zones: per cell, row by row. seed: of the grain that the picture has. jpeg: quality.
    """

    columns: int
    rows: int
    zones: tuple[str, ...]
    marks: tuple[Mark, ...]
    seed: int
    jpeg: int

    def cells(self) -> list[Cell]:
        """What the cells show, row by row."""
        marks: Mapping[int, Mark] = {mark.cell: mark for mark in self.marks}
        return [
            Cell(marks[index].shape, marks[index].colour, zone) if index in marks else Cell(third=zone)
            for index, zone in enumerate(self.zones)
        ]


Picture = Screen | Shot
