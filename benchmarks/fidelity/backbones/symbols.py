"""What a tower learns to say of a cell, and what the decoder meanwhile learns from: the sum of two codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from kamera_agent.pocket.screen import Cell, Picture
from kamera_agent.pocket.words import SHOWN, TITLES
from kamera_agent.pocket.world import CLASSES

LENGTH = 3.0
# Standard deviation of what is added in training, in each dimension: towers err, too.
NOISE = 0.05


class Symbols:
    """Features of every cell that a screen may show, by what it shows.

    A value is told by the embedding of its word, a label or a title by the same turned at random. Where the features
    of several layers of an encoder reach the decoder (deepstack), each tells its share.
    """

    def __init__(self, embeddings: torch.Tensor, levels: int, seed: int) -> None:
        """embeddings: [words, hidden], the decoder's of SHOWN. levels: hidden-wide parts of a feature."""
        generator = torch.Generator().manual_seed(seed)
        turned = torch.linalg.qr(torch.randn(*embeddings.shape[1:] * 2, generator=generator))[0]
        plain = functional.normalize(embeddings, dim=1)
        codes = {word: number for number, word in enumerate(SHOWN)}
        pairs = [(label, value) for labels, values in CLASSES.values() for label in labels for value in values]
        cells = [Cell(), *[Cell(title) for title in TITLES], *[Cell(*pair) for pair in pairs]]
        self._rows = {cell: row for row, cell in enumerate(cells)}
        told = torch.zeros(len(cells), embeddings.shape[1])
        for cell, row in self._rows.items():
            if cell.first:
                told[row] += plain[codes[cell.first]] @ turned
            if cell.second:
                told[row] += plain[codes[cell.second]]
        self.clean = (LENGTH / levels * told).repeat(1, levels)
        self.table = self.clean

    def blur(self, rng: np.random.Generator) -> None:
        """Give the table other errors."""
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        self.table = self.clean + NOISE * torch.randn(self.clean.shape, generator=generator)

    def rows(self, picture: Picture, rng: np.random.Generator) -> Sequence[int]:
        """Rows of the table, one per cell."""
        return [self._rows[cell] for cell in picture.cells()]
