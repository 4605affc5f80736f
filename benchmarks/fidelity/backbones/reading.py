"""A vision tower of any kind learns to say what the cells of whole pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.fidelity.backbones.symbols import Symbols
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.screen import Screen
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.image_text import accepted, rows_of
from kamera_agent.runtime.families.mrope import MRope

AT_ONCE = 24
NUM_WHITENED = 100
# Directions in which pixels hardly differ are not blown up.
FAINTEST = 1e-3


class Reading:
    """Pictures, and what a family's tower is to make of them. Its patch embedding is set here."""

    def __init__(self, family: Family, symbols: Symbols, pictures: Sequence[Screen]) -> None:
        self._family = family
        self._encoder = family.model.model.get_image_features
        drawn = [draw_screen(picture) for picture in pictures]
        inputs = accepted(self._encoder, family.processors.image_processor(images=drawn, return_tensors="pt"))
        self._inputs = {name: rows.unflatten(0, (len(pictures), -1)) for name, rows in inputs.items()}
        rng = np.random.default_rng(0)
        self._symbols = symbols.clean
        self._meant = torch.tensor([symbols.rows(picture, rng) for picture in pictures])
        self._whiten()
        self._freeze_idle()

    @property
    def eyes(self) -> list[nn.Module]:
        """What learns: all but the decoder."""
        return [part for part in self._family.model.model.children() if part is not self._family.decoder.module]

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Squared distance from what is meant, and surprise at which of all symbols it is."""
        chosen = torch.from_numpy(rng.choice(len(self._meant), AT_ONCE, replace=False))
        said, meant = self._say(chosen), self._meant[chosen].flatten()
        distances = (said - self._symbols[meant]).square().sum(1).mean()
        scores = said @ self._symbols.mT - self._symbols.square().sum(1) / 2
        return distances + functional.cross_entropy(scores, meant)

    @torch.no_grad()
    def error(self) -> float:
        """Mean distance from what is meant of the cells that show something, relative to its length."""
        said = torch.cat([self._say(part) for part in torch.arange(len(self._meant)).split(AT_ONCE)])
        meant = self._symbols[self._meant.flatten()]
        full = meant.norm(dim=1) > 0
        return float(((said - meant).norm(dim=1)[full] / meant.norm(dim=1)[full]).mean())

    def _say(self, chosen: torch.Tensor) -> torch.Tensor:
        """Features [cells, width] of some pictures."""
        outputs = self._encoder(**{name: rows[chosen].flatten(0, 1) for name, rows in self._inputs.items()})
        family = self._family
        return family.features(outputs) if isinstance(family, MRope) else rows_of(outputs.pooler_output)

    @torch.no_grad()
    def _whiten(self) -> None:
        """Make the patch embedding the whitened principal components of the patches it gets.

        Raw pixels are so unevenly scaled that a learned embedding takes very long to see the strokes of letters.
        """
        embedding: Any = next(part for part in self._family.model.modules() if isinstance(part, nn.Conv2d | nn.Conv3d))
        seen: list[torch.Tensor] = []
        hook = embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        self._say(torch.arange(min(NUM_WHITENED, len(self._meant))))
        hook.remove()
        patches = _cut(embedding, seen[0])
        mean = patches.mean(0)
        _, strengths, axes = torch.pca_lowrank(patches, len(embedding.weight), niter=4)
        scales = strengths.clamp_min(FAINTEST * float(strengths[0])) / len(patches) ** 0.5
        weight = axes.mT / scales[:, None]
        embedding.weight.copy_(weight.view_as(embedding.weight))
        if embedding.bias is not None:
            embedding.bias.copy_(-(weight @ mean))
        embedding.requires_grad_(False)

    def _freeze_idle(self) -> None:
        """Some towers have layers whose output nobody takes; they get no gradient."""
        learning = [parameter for part in self.eyes for parameter in part.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(self.loss(np.random.default_rng(0)), learning, allow_unused=True)
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)


def _cut(embedding: nn.Conv2d | nn.Conv3d, pixels: torch.Tensor) -> torch.Tensor:
    """Patches [N, numbers] of what a patch embedding is given: images, or patches that are cut already."""
    if isinstance(embedding, nn.Conv3d):
        return pixels.flatten(1)
    size = embedding.kernel_size
    return functional.unfold(pixels, (size[0], size[1]), stride=(size[0], size[1])).transpose(1, 2).flatten(0, 1)
