"""Symbols: the features that a tower learns to write for cells, and that the decoder learns from meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from kamera_agent.pocket.screen import Cell, Picture
from kamera_agent.pocket.words import SHOWN, TITLES
from kamera_agent.pocket.world import CLASSES

# Relative to the length of the embeddings of words.
LENGTH = 1.5
# Standard deviation per dimension of the noise in training, which is like the errors of a tower. Relative to
# the same length.
NOISE = 0.025


class Symbols:
    """Features of every cell that a screen can show, by its content.

    A feature is a sum of two codes: the embedding of the value, and a random rotation of the embedding of the label or
    title. If features of several encoder layers reach the decoder (deepstack), each has an equal share.
    """

    def __init__(self, embeddings: torch.Tensor, levels: int, seed: int) -> None:
        """embeddings: [words, hidden], those of SHOWN in the decoder. levels: parts of a feature, each hidden wide."""
        generator = torch.Generator().manual_seed(seed)
        rotation = torch.linalg.qr(torch.randn(*embeddings.shape[1:] * 2, generator=generator))[0]
        plain = functional.normalize(embeddings, dim=1)
        number_of = {word: number for number, word in enumerate(SHOWN)}
        pairs = [(label, value) for labels, values in CLASSES.values() for label in labels for value in values]
        cells = [Cell(), *[Cell(title) for title in TITLES], *[Cell(*pair) for pair in pairs]]
        self._rows = {cell: row for row, cell in enumerate(cells)}
        codes = torch.zeros(len(cells), embeddings.shape[1])
        for cell, row in self._rows.items():
            if cell.first:
                codes[row] += plain[number_of[cell.first]] @ rotation
            if cell.second:
                codes[row] += plain[number_of[cell.second]]
        self._unit = float(embeddings.norm(dim=1).mean())
        self.clean = (LENGTH * self._unit / levels * codes).repeat(1, levels)
        self.table = self.clean

    def blur(self, rng: np.random.Generator) -> None:
        """Draw new noise for the table."""
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        self.table = self.clean + NOISE * self._unit * torch.randn(self.clean.shape, generator=generator)

    def rows(self, picture: Picture, rng: np.random.Generator) -> Sequence[int]:
        """Rows of the table, one per cell."""
        return [self._rows[cell] for cell in picture.cells()]
