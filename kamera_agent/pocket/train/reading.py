"""First stage: the vision tower learns to read cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from kamera_agent.pocket.screen import Screen, Shot
from kamera_agent.pocket.train.frame import Frame
from kamera_agent.pocket.train.gallery import Drawn
from kamera_agent.pocket.train.probes import CLASSES, FLAGS, label
from kamera_agent.pocket.train.tower import Tower
from kamera_agent.pocket.words import COLOURS, ITEMS, MONTHS, NUMBERS, PERSONS, ROOMS, SHAPES, ZONES
from kamera_agent.pocket.world import Size
from kamera_agent.vision.image import Pixels

# Small pictures full of cards: nearly every cell is a lesson.
DENSE = Size(grids=((4, 4), (5, 4), (4, 5), (6, 3)), min_cards=10, max_cards=12)
BATCH = 32
# Of the pictures of a batch; marks are far easier to read than words.
SHOTS = 3
RECOLOURED = 0.6
NUM_WHITENED = 800
# Length of a word's code in a feature: what the decoder's residual stream starts with.
FEATURE_NORM = 3.0
CERTAINTY = 12.0

# What each slot of a cell's description may show.
SLOT_WORDS = (ITEMS + PERSONS + ROOMS + MONTHS + SHAPES, NUMBERS + PERSONS + ROOMS + COLOURS, ZONES)


class Reading:
    """A tower that learns what the cells of a gallery show, and to tell it in the words of a frame."""

    def __init__(self, tower: Tower, frame: Frame, embeddings: torch.Tensor, gallery: Sequence[Drawn]) -> None:
        """embeddings: [words, hidden], the decoder's of SHOWN. The tower's patch embedding is set here."""
        tower.whiten(torch.cat([tower.patches(drawn.frames) for drawn in gallery[:NUM_WHITENED]]))
        self._tower, self._frame, self._gallery = tower, frame, gallery
        self._labels = [label(drawn.picture.cells()) for drawn in gallery]
        self._screens = [index for index, drawn in enumerate(gallery) if isinstance(drawn.picture, Screen)]
        self._shots = [index for index, drawn in enumerate(gallery) if isinstance(drawn.picture, Shot)]
        shared = embeddings @ frame.shared
        self._codes = [self._code(shared[:, : len(slot)]) for slot in frame.slots]
        self._thresholds = torch.stack([self._threshold(words) for words in SLOT_WORDS])

    @staticmethod
    def _code(codes: torch.Tensor) -> torch.Tensor:
        """Codes of all classes, of length 1 for words and 0 for flags."""
        return torch.cat([torch.zeros(len(FLAGS), codes.shape[1]), functional.normalize(codes, dim=1)])

    @staticmethod
    def _threshold(words: Sequence[str]) -> torch.Tensor:
        """Nothing wins where no word reaches half its length; what a slot never shows never wins."""
        return torch.tensor([0.5, *[0.0 if name in words else -100.0 for name in list(CLASSES)[1:]]])

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Loss of reading some pictures of the gallery in other colours: the right words, and nothing but them."""
        shots = SHOTS if self._shots else 0
        chosen = [*rng.choice(self._screens, BATCH - shots), *rng.choice(self._shots or [0], shots)]
        patches = torch.cat([self._tower.patches(_recolour(self._gallery[index], rng)) for index in chosen])
        labels = torch.cat([self._labels[index] for index in chosen])
        features = self._tower(patches)
        scores, something = self._scores(features), labels > 0
        wrong = functional.cross_entropy(scores[something], labels[something]) + functional.cross_entropy(
            scores[~something], labels[~something]
        )
        meant = sum(
            codes[labels[:, slot]] @ place
            for slot, (codes, place) in enumerate(zip(self._codes, self._frame.slots, strict=True))
        )
        noise = (features / FEATURE_NORM - meant).square().sum(-1)
        full = something.any(-1)
        return wrong + sum(noise[cells].mean() for cells in (full, ~full) if cells.any())

    @torch.no_grad()
    def accuracy(self, gallery: Sequence[Drawn]) -> float:
        """Share of the cells with something in them that are read without a fault."""
        features = torch.cat([self._tower(self._tower.patches(drawn.frames)) for drawn in gallery])
        labels = torch.cat([label(drawn.picture.cells()) for drawn in gallery])
        right = (self._scores(features).argmax(-1) == labels).all(-1)
        return float(right[(labels > 0).any(-1)].float().mean())

    def _scores(self, features: torch.Tensor) -> torch.Tensor:
        """[N, slots, classes] for features [N, hidden]."""
        told = [
            features / FEATURE_NORM @ place.mT @ codes.mT
            for codes, place in zip(self._codes, self._frame.slots, strict=True)
        ]
        return CERTAINTY * (torch.stack(told, dim=1) + self._thresholds)


def _recolour(drawn: Drawn, rng: np.random.Generator) -> Pixels:
    """A screen in colours of another theme; the colours of a shot mean something and stay."""
    if not isinstance(drawn.picture, Screen) or rng.random() > RECOLOURED:
        return drawn.frames
    pixels = drawn.frames[..., rng.permutation(3)].astype(np.float32)
    if rng.random() < 0.5:
        pixels = 255 - pixels
    return np.clip(pixels * rng.uniform(0.8, 1.15) + rng.uniform(-25, 25, 3), 0, 255)
