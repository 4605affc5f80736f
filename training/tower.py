"""The vision tower over loose cells: the numbers of Hugging Face's forward pass, for many cells at a time.

The attention of the pocket model's tower stays within a window of one cell. Hugging Face runs windows one by one; a
training step has thousands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision


class Tower:
    """A Qwen2.5-VL vision tower with separate steps for patches, patch embedding and blocks."""

    def __init__(self, visual: Any, image_processor: Any) -> None:
        self.visual = visual
        self._patch = image_processor.patch_size
        self._mean = torch.tensor(image_processor.image_mean)
        self._std = torch.tensor(image_processor.image_std)
        # A cell has side x side patches, row by row, in the order of the merger.
        self._side = image_processor.merge_size
        self._places = torch.cartesian_prod(torch.arange(self._side), torch.arange(self._side))

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
        """Patch embeddings [N, width] of patches [N, 3 · P · P]."""
        weight: torch.Tensor = self.visual.patch_embed.proj.weight
        return patches @ weight.sum(2).flatten(1).mT

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Features [cells, hidden] of the patches of cells."""
        states = self.embed(patches)
        for block in self.visual.blocks:
            states = states + self._attend(block.attn, block.norm1(states))
            states = states + block.mlp(block.norm2(states))
        features: torch.Tensor = self.visual.merger(states)
        return features

    def _attend(self, attention: Any, states: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            attention.qkv(states).view(-1, len(self._places), 3, attention.num_heads, attention.head_dim).unbind(2)
        )
        turns = self._places[:, :, None] * self.visual.rotary_pos_emb.inv_freq
        angles = turns.flatten(1).repeat(1, 2)
        query, key = apply_rotary_pos_emb_vision(query, key, angles.cos(), angles.sin())
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = attention.proj(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        return out
