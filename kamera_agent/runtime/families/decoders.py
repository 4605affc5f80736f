"""What differs between the decoders of text models, and which type has which."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.families.decoder import SLIDING, Decoder
from kamera_agent.runtime.families.latent import ComplexLatentDecoder, LatentDecoder


class FusedDecoder(Decoder):
    """A decoder with one projection for queries, keys and values, in this order."""

    def key_module(self, attention: Any) -> nn.Module:
        module: nn.Module = attention.qkv_proj
        return module

    def keys_of(self, output: torch.Tensor, heads: Heads) -> torch.Tensor:
        first = self.config.num_attention_heads * heads.dim
        return super().keys_of(output[..., first : first + heads.num * heads.dim], heads)


class HeadFirstDecoder(Decoder):
    """A decoder that normalises keys after they were split into heads."""

    keys_by_head = True


class InterleavedDecoder(Decoder):
    """A decoder whose RoPE turns neighbouring components."""

    pairs = "interleaved"


class NormedDecoder(Decoder):
    """A decoder that calls the norm of its keys k_layernorm, as LFM2."""

    def key_module(self, attention: Any) -> nn.Module:
        module: nn.Module = attention.k_layernorm
        return module


class SlidingRotaryDecoder(Decoder):
    """A decoder with RoPE in its sliding layers only; without a window, in all.

    Keys of full layers beside sliding ones have no position.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.turned = [kind == SLIDING or self.config.sliding_window is None for kind in self.kinds]


class Exaone4Decoder(HeadFirstDecoder, SlidingRotaryDecoder):
    """A decoder of EXAONE 4."""


class Cohere2Decoder(InterleavedDecoder, SlidingRotaryDecoder):
    """A decoder of Cohere 2."""


class SharingDecoder(Decoder):
    """A decoder whose last layers may read the KV of earlier ones, and whose layers may differ in their heads."""

    @cached_property
    def key_modules(self) -> Mapping[int, nn.Module]:
        attentions = {number: layer.self_attn for number, layer in enumerate(self.module.layers)}
        return {number: self.key_module(one) for number, one in attentions.items() if not one.is_kv_shared_layer}

    def heads(self, layer: int) -> tuple[Heads, Heads]:
        attention = self.module.layers[layer].self_attn
        heads = Heads(attention.k_proj.out_features // attention.head_dim, attention.head_dim)
        return heads, heads


class Gemma4Decoder(SharingDecoder):
    """A decoder of Gemma 4."""

    both_ways_kinds = (SLIDING,)


# By `config.model_type` of the text model. Inside a model with eyes, every other type is a plain Decoder.
DECODERS: dict[str, type[Decoder]] = {
    "cohere2": Cohere2Decoder,
    "deepseek_v2": ComplexLatentDecoder,
    "deepseek_v3": LatentDecoder,
    "ernie4_5_vl_moe_text": InterleavedDecoder,
    "exaone4": Exaone4Decoder,
    "gemma3_text": HeadFirstDecoder,
    "gemma3n_text": SharingDecoder,
    "gemma4_text": Gemma4Decoder,
    "glm4v_text": InterleavedDecoder,
    "glm_ocr_text": InterleavedDecoder,
    "lfm2": NormedDecoder,
    "lfm2_moe": NormedDecoder,
    "lfm3": Decoder,
    "phi3": FusedDecoder,
    "phi4_multimodal": FusedDecoder,
    "qwen3_5_moe_text": Decoder,
    "qwen3_5_text": Decoder,
    "qwen3_next": Decoder,
    "mistral4": LatentDecoder,
}


def decoder_of(module: Any) -> Decoder:
    """The decoder of a text model. Raises UnsupportedModelError."""
    return DECODERS.get(module.config.model_type, Decoder)(module)
