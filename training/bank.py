"""Features of cells, kept in tables from which windows are put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from kamera_agent.pocket.screen import Cell, Picture, Shot
from training.gallery import Drawn, cut
from training.tower import Tower
from training.variety import vary


@torch.no_grad()
def encode(tower: Tower, gallery: Sequence[Drawn], rng: np.random.Generator | None = None) -> torch.Tensor:
    """Features [cells of all pictures, hidden], one after the other.

    rng: show the cells in other looks, drawn from it. None: as they are.
    """
    features = []
    for drawn in gallery:
        cells = cut(drawn.frames)
        if rng is not None:
            cells = vary(cells, torch.full((len(cells),), isinstance(drawn.picture, Shot)), rng)
        features.append(tower(tower.patches(cells)))
    return torch.cat(features)


class Bank:
    """Features by what a cell shows: windows are put together without drawing them.

    A feature depends on the pixels of its cell alone, so a cell may come from any picture.
    """

    def __init__(self, tower: Tower, gallery: Sequence[Drawn], rng: np.random.Generator | None) -> None:
        """rng: draws the other looks that every cell is shown in, too. None: its own look only."""
        looks = (None,) if rng is None else (None, rng)
        self.table = torch.cat([encode(tower, gallery, look) for look in looks])
        self._rows: defaultdict[Cell, list[int]] = defaultdict(list)
        for row, cell in enumerate(cell for _ in looks for drawn in gallery for cell in drawn.picture.cells()):
            self._rows[cell].append(row)

    def holds(self, window: Sequence[Picture]) -> bool:
        """Whether every cell of a window has been seen in the gallery; a rare pair of words may not."""
        return all(cell in self._rows for picture in window for cell in picture.cells())

    def rows(self, picture: Picture, rng: np.random.Generator) -> list[int]:
        """For every cell of a picture a row of the table, drawn among those that show the same."""
        found = [self._rows[cell] for cell in picture.cells()]
        return [rows[int(draw * len(rows))] for rows, draw in zip(found, rng.random(len(found)), strict=True)]


class Album:
    """Features of windows that were drawn whole."""

    def __init__(self, windows: Sequence[Sequence[Picture]], table: torch.Tensor) -> None:
        """table: features of the windows' cells, one after the other."""
        self.table = table
        self._first: dict[int, int] = {}
        row = 0
        for picture in (picture for window in windows for picture in window):
            self._first[id(picture)] = row
            row += picture.columns * picture.rows

    def rows(self, picture: Picture, rng: np.random.Generator) -> range:
        """The rows of a picture of one of the windows."""
        first = self._first[id(picture)]
        return range(first, first + picture.columns * picture.rows)
