"""Training of any vision tower to write symbols for the cells of whole pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
# The smallest scale, relative to the largest, by which whitening divides a component.
FAINTEST = 1e-3


class Reading:
    """Pictures, and the features that the tower of a family should have for them. Sets its patch embedding."""

    def __init__(self, family: Family, symbols: Symbols, pictures: Sequence[Screen]) -> None:
        self._family = family
        self._encoder = family.model.model.get_image_features
        drawn = [draw_screen(picture) for picture in pictures]
        inputs = _unpadded(
            accepted(self._encoder, family.processors.image_processor(images=drawn, return_tensors="pt"))
        )
        self._inputs = {name: rows.unflatten(0, (len(pictures), -1)) for name, rows in inputs.items()}
        rng = np.random.default_rng(0)
        self._symbols = symbols.clean
        self._rows = torch.tensor([symbols.rows(picture, rng) for picture in pictures])
        self._whiten()
        self._freeze_idle()

    @property
    def eyes(self) -> list[nn.Module]:
        """The trained modules: all but the decoder."""
        return [part for part in self._family.model.model.children() if part is not self._family.decoder.module]

    def loss(self, rng: np.random.Generator) -> torch.Tensor:
        """Squared distance from the right symbols, plus cross-entropy over all symbols."""
        chosen = torch.from_numpy(rng.choice(len(self._rows), AT_ONCE, replace=False))
        features, rows = self._encode(chosen), self._rows[chosen].flatten()
        distances = (features - self._symbols[rows]).square().sum(1).mean()
        scores = features @ self._symbols.mT - self._symbols.square().sum(1) / 2
        return distances + functional.cross_entropy(scores, rows)

    @torch.no_grad()
    def error(self) -> float:
        """Mean distance from the right symbols of cells that show something, relative to their length."""
        features = torch.cat([self._encode(part) for part in torch.arange(len(self._rows)).split(AT_ONCE)])
        targets = self._symbols[self._rows.flatten()]
        full = targets.norm(dim=1) > 0
        return float(((features - targets).norm(dim=1)[full] / targets.norm(dim=1)[full]).mean())

    def _encode(self, chosen: torch.Tensor) -> torch.Tensor:
        """Features [cells, width] of the chosen pictures."""
        outputs = self._encoder(**{name: rows[chosen].flatten(0, 1) for name, rows in self._inputs.items()})
        family = self._family
        return family.features(outputs) if isinstance(family, MRope) else rows_of(outputs.pooler_output)

    @torch.no_grad()
    def _whiten(self) -> None:
        """Set the patch embedding to the whitened principal components of its patches, and freeze it.

        The scale of raw pixels is so uneven that a learned embedding takes very long to see the strokes of letters.
        """
        embedding = _patch_embedding(self._family.model)
        inputs: list[torch.Tensor] = []
        hook = embedding.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        self._encode(torch.arange(min(NUM_WHITENED, len(self._rows))))
        hook.remove()
        patches = _cut(embedding, inputs[0])
        mean = patches.mean(0)
        _, strengths, axes = torch.pca_lowrank(patches, len(embedding.weight), niter=4)
        scales = strengths.clamp_min(FAINTEST * float(strengths[0])) / len(patches) ** 0.5
        weight = axes.mT / scales[:, None]
        embedding.weight.copy_(weight.view_as(embedding.weight))
        if embedding.bias is not None:
            embedding.bias.copy_(-(weight @ mean))
        embedding.requires_grad_(False)

    def _freeze_idle(self) -> None:
        """Freeze parameters that get no gradient: some towers have layers whose output is not used."""
        learning = [parameter for part in self.eyes for parameter in part.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(self.loss(np.random.default_rng(0)), learning, allow_unused=True)
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)


def _unpadded(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Inputs for pictures of one size, without the patches by which Gemma 4 makes all of them equally long."""
    if "image_position_ids" not in inputs:
        return dict(inputs)
    used = inputs["image_position_ids"][0, :, 0] >= 0
    return {name: rows[:, used] for name, rows in inputs.items()}


def _patch_embedding(model: Any) -> Any:
    """The convolution over an image, or the linear layer over patches that are cut already."""
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    return convolutions[0] if convolutions else model.model.vision_tower.patch_embedder.input_proj


def _cut(embedding: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Patches [N, numbers] of the input of a patch embedding: images, or patches that are cut already."""
    if isinstance(embedding, nn.Conv3d):
        return pixels.flatten(1)
    if isinstance(embedding, nn.Linear):
        return pixels.flatten(0, -2)
    size = embedding.kernel_size
    return functional.unfold(pixels, (size[0], size[1]), stride=(size[0], size[1])).transpose(1, 2).flatten(0, 1)
