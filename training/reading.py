"""First stage: the vision tower learns to read cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from kamera_agent.pocket.words import COLOURS, ITEMS, MONTHS, NUMBERS, PERSONS, ROOMS, SHAPES, ZONES
from training.bank import encode
from training.frame import Frame
from training.gallery import Drawn, cut
from training.probes import CLASSES, FLAGS, label, slot_loss
from training.tower import Tower
from training.variety import vary

NUM_WHITENED = 14_000
# The slot that every cell of a shot fills, and no other cell.
ZONE_SLOT = 2
# Length of the code of a word in a feature, with which the residual stream of the decoder starts.
FEATURE_NORM = 3.0
# Scale of the scores before the softmax.
CERTAINTY = 12.0

# The words that each slot of a cell can show.
SLOT_WORDS = (ITEMS + PERSONS + ROOMS + MONTHS + SHAPES, NUMBERS + PERSONS + ROOMS + COLOURS, ZONES)


class Reading:
    """A tower that learns to write the content of cells in the codes of a frame."""

    def __init__(
        self,
        tower: Tower,
        frame: Frame,
        embeddings: torch.Tensor,
        gallery: Sequence[Drawn],
        num_cells: tuple[int, int, int],
        *,
        varied: bool,
    ) -> None:
        """Sets the patch embedding of the tower.

        embeddings: [words, hidden], those of SHOWN in the decoder. num_cells, varied: Gallery.cells and Gallery.varied.
        """
        self._cells = torch.cat([cut(drawn.frames).byte() for drawn in gallery])
        self._labels = torch.cat([label(drawn.picture.cells()) for drawn in gallery])
        self._in_shot, full = self._labels[:, ZONE_SLOT] > 0, (self._labels > 0).any(-1)
        kinds = full & ~self._in_shot, self._in_shot, ~full
        self._kinds = [(kind.nonzero().flatten(), count) for kind, count in zip(kinds, num_cells, strict=True) if count]
        self._tower, self._frame, self._varied = tower, frame, varied
        tower.whiten(tower.patches(self._cells[:NUM_WHITENED].float()))
        shared = embeddings @ frame.shared
        self._codes = [self._code(shared[:, : len(slot)]) for slot in frame.slots]
        self._thresholds = torch.stack([self._threshold(words) for words in SLOT_WORDS])

    @staticmethod
    def _code(codes: torch.Tensor) -> torch.Tensor:
        """Codes of all classes: of length 1 for words, of length 0 for flags."""
        return torch.cat([torch.zeros(len(FLAGS), codes.shape[1]), functional.normalize(codes, dim=1)])

    @staticmethod
    def _threshold(words: Sequence[str]) -> torch.Tensor:
        """Added to the scores: "empty" wins if no word reaches half its length; words of other slots never win."""
        return torch.tensor([0.5, *[0.0 if name in words else -100.0 for name in list(CLASSES)[1:]]])

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Loss over some cells of the gallery: of the words, and of everything else in a feature."""
        chosen = torch.from_numpy(np.concatenate([rng.choice(kind, count) for kind, count in self._kinds]))
        cells, labels = self._cells[chosen].float(), self._labels[chosen]
        if self._varied:
            cells = vary(cells, self._in_shot[chosen], rng)
        features = self._tower(self._tower.patches(cells))
        wrong = slot_loss(self._scores(features), labels)
        clean = sum(
            codes[labels[:, slot]] @ place
            for slot, (codes, place) in enumerate(zip(self._codes, self._frame.slots, strict=True))
        )
        noise = (features / FEATURE_NORM - clean).square().sum(-1)
        full = (labels > 0).any(-1)
        return wrong + sum(noise[cells].mean() for cells in (full, ~full) if cells.any())

    @torch.no_grad()
    def accuracy(self, gallery: Sequence[Drawn]) -> float:
        """Share of the cells that show something whose words are all read correctly."""
        features = encode(self._tower, gallery)
        labels = torch.cat([label(drawn.picture.cells()) for drawn in gallery])
        right = (self._scores(features).argmax(-1) == labels).all(-1)
        return float(right[(labels > 0).any(-1)].float().mean())

    def _scores(self, features: torch.Tensor) -> torch.Tensor:
        """[N, slots, classes] for features [N, hidden]."""
        scores = [
            features / FEATURE_NORM @ place.mT @ codes.mT
            for codes, place in zip(self._codes, self._frame.slots, strict=True)
        ]
        return CERTAINTY * (torch.stack(scores, dim=1) + self._thresholds)
