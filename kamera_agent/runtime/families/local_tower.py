"""A vision tower whose attention stays within a token, for all tokens at once.

Hugging Face runs the windows of a tower one by one, and its patch embedding, which is a matrix product, as a
convolution. With windows of one token each, as in the pocket model, that is most of the time that a picture takes.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision


class LocalTower:
    """A Qwen2.5-VL vision tower, each of whose windows is the square of patches that the merger makes one token of."""

    def __init__(self, visual: Any) -> None:
        self.visual = visual
        side = visual.config.spatial_merge_size
        self._places = torch.cartesian_prod(torch.arange(side), torch.arange(side))

    @classmethod
    def of(cls, visual: Any) -> Self | None:
        """The tower of a model; None if its attention goes further."""
        config = visual.config
        if getattr(config, "fullatt_block_indexes", None) != []:
            return None
        return cls(visual) if config.window_size == config.spatial_merge_size * config.patch_size else None

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Patch embeddings [N, width] of patches [N, 3 · t · P · P]."""
        weight: torch.Tensor = self.visual.patch_embed.proj.weight
        return patches @ weight.flatten(1).mT

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Features [tokens, hidden] of the patches of tokens, token by token."""
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
        turns = self._places.to(states.device)[:, :, None] * self.visual.rotary_pos_emb.inv_freq
        angles = turns.flatten(1).repeat(1, 2)
        query, key = apply_rotary_pos_emb_vision(query, key, angles.cos(), angles.sin())
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = attention.proj(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        return out
