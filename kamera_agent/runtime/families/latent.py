"""Decoders with multi-head latent attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.families.decoder import Decoder


class LatentDecoder(Decoder):
    """A decoder with multi-head latent attention (MLA, arXiv 2405.04434): one latent gives K and V of all heads.

    The pool keeps the latent: c_KV [1, T, kv_lora_rank], which has no position, as values; k_pe [1, T,
    qk_rope_head_dim], the only part that RoPE turns, as keys.
    """

    attention = "MLA"
    values_first = True

    @property
    def expanded_bytes(self) -> int:
        config = self.config
        numbers = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
        return int(len(self.kinds) * config.num_attention_heads * numbers * self.dtype.itemsize)

    def heads(self, layer: int) -> tuple[Heads, Heads]:
        return Heads(1, self.config.qk_rope_head_dim), Heads(1, self.config.kv_lora_rank)

    def key_module(self, attention: Any) -> nn.Module:
        module: nn.Module = attention.kv_a_proj_with_mqa
        return module

    def keys_of(self, output: torch.Tensor, heads: Heads) -> torch.Tensor:
        keys = super().keys_of(output[..., self.config.kv_lora_rank :], heads)
        if getattr(self.config, "rope_interleave", False):
            # The model reads neighbouring pairs and writes halves; masters have the order that it writes.
            keys = keys.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2)
        return keys


class ComplexLatentDecoder(LatentDecoder):
    """MLA with a rotary embedding that returns complex numbers, one per neighbouring pair."""

    pairs = "interleaved"

    def _table(self, like: torch.Tensor, where: torch.Tensor, *kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        turns = self.rotary(like, where, *kind).repeat_interleave(2, dim=-1)
        return turns.real.to(like.dtype), turns.imag.to(like.dtype)
