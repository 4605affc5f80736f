"""The vision tower of the pocket model over loose cells, many at a time."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.runtime.families.local_tower import LocalTower


class Tower(LocalTower):
    """The tower with separate steps for patches, patch embedding and blocks. A cell is one token."""

    def __init__(self, visual: Any, image_processor: Any) -> None:
        super().__init__(visual)
        self._patch = image_processor.patch_size
        self._mean = torch.tensor(image_processor.image_mean)
        self._std = torch.tensor(image_processor.image_std)
        # A cell has side x side patches, row by row, in the order of the merger.
        self._side = image_processor.merge_size

    def patches(self, cells: torch.Tensor) -> torch.Tensor:
        """Normalised patches [N · side², 3 · P · P] of cells [N, 3, CELL, CELL] with values from 0 to 255."""
        pixels = (cells / 255 - self._mean[:, None, None]) / self._std[:, None, None]
        split = pixels.unflatten(3, (self._side, self._patch)).unflatten(2, (self._side, self._patch))
        patches: torch.Tensor = split.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
        return patches

    @torch.no_grad()
    def whiten(self, patches: torch.Tensor) -> None:
        """Set the patch embedding to the whitened principal components of patches [N, 3 · P · P], and freeze it.

        The scale of raw pixels is dominated by brightness, so a learned embedding takes very long to see the strokes of
        letters. Both frames of a temporal patch get the same weights: the embedding is that of their mean.
        """
        weight = self.visual.patch_embed.proj.weight
        # In double precision: the energy of strokes is many orders of magnitude below that of brightness.
        energies, axes = torch.linalg.eigh((patches.mT @ patches / len(patches)).double())
        axes = (axes.flip(1)[:, : len(weight)] / energies.flip(0)[: len(weight)].sqrt()).float()
        # The solver chooses the signs of eigenvectors; fix them, so that two machines train the same model.
        axes *= axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        halves = (axes.mT / 2).view(len(weight), 3, 1, self._patch, self._patch)
        weight.copy_(halves.expand_as(weight))
        weight.requires_grad_(False)

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch embeddings [N, width] of patches [N, 3 · P · P] of one frame, or of the mean of two."""
        weight: torch.Tensor = self.visual.patch_embed.proj.weight
        return patches @ weight.sum(2).flatten(1).mT
