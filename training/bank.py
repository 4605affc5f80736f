"""Tables of cell features, from which windows are assembled."""

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
    """Features [cells, hidden] of all pictures, picture by picture.

    rng: draws another look for every cell. None: cells are encoded as they are.
    """
    features = []
    for drawn in gallery:
        cells = cut(drawn.frames)
        if rng is not None:
            cells = vary(cells, torch.full((len(cells),), isinstance(drawn.picture, Shot)), rng)
        features.append(tower(tower.patches(cells)))
    return torch.cat(features)


class Bank:
    """Features by the content of a cell: windows are assembled without being drawn.

    A feature depends on the pixels of its cell alone, so a cell can come from any picture.
    """

    def __init__(self, tower: Tower, gallery: Sequence[Drawn], rng: np.random.Generator | None) -> None:
        """rng: draws another look for every cell, which is added to its own. None: its own look only."""
        looks = (None,) if rng is None else (None, rng)
        self.table = torch.cat([encode(tower, gallery, look) for look in looks])
        self._rows: defaultdict[Cell, list[int]] = defaultdict(list)
        for row, cell in enumerate(cell for _ in looks for drawn in gallery for cell in drawn.picture.cells()):
            self._rows[cell].append(row)

    def holds(self, window: Sequence[Picture]) -> bool:
        """Whether the gallery shows every cell of a window. A rare pair of words can be missing."""
        return all(cell in self._rows for picture in window for cell in picture.cells())

    def rows(self, picture: Picture, rng: np.random.Generator) -> list[int]:
        """Rows of the table, one per cell, each drawn from the rows whose cells show the same."""
        candidates = [self._rows[cell] for cell in picture.cells()]
        draws = rng.random(len(candidates))
        return [rows[int(draw * len(rows))] for rows, draw in zip(candidates, draws, strict=True)]


class Album:
    """Features of windows that are drawn whole."""

    def __init__(self, windows: Sequence[Sequence[Picture]], table: torch.Tensor) -> None:
        """table: features of the cells of the windows, in order."""
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
