"""The attention of the decoder in training: that of torch, from which single weights can be had afterwards.

A window of two thousand tokens has four million weights a head, of which the gazes ask for a few thousand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

ATTENTION = "kamera_training"


class Weights(NamedTuple):
    """The attention weights of a layer, not yet computed.

    query [B, heads, S, D]. key [B, groups, S, D]. mask [B, 1, S, S]: added to the scores.
    """

    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor
    scaling: float

    def of(self, head: int, rows: torch.Tensor, places: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Weights [N] that a head pays from places to keys, both in the sequences of rows, [N] each."""
        group = head * self.key.shape[1] // self.query.shape[1]
        weights = self.query.new_empty(len(rows))
        for row in rows.unique().tolist():
            here = (rows == row).nonzero().flatten()
            asking, at = places[here].unique(return_inverse=True)
            scores = self.query[row, head, asking] @ self.key[row, group].mT * self.scaling + self.mask[row, 0, asking]
            weights = weights.index_copy(0, here, scores.softmax(-1)[at, keys[here]])
        return weights


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, Weights]:
    groups = query.shape[1] // key.shape[1]
    keys, values = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    # A plain forward pass of the same model has no mask where it is causal.
    is_causal = attention_mask is None and query.shape[2] > 1
    mixed = functional.scaled_dot_product_attention(
        query, keys, values, attention_mask, is_causal=is_causal, scale=scaling
    )
    return mixed.transpose(1, 2).contiguous(), Weights(query, key, attention_mask, scaling)


def install(config: Any) -> None:
    """Let the decoder of a text configuration use this attention."""
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    config._attn_implementation = ATTENTION
