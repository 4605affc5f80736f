"""Keys that a text model caches by itself, as the reference for moved keys."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from transformers import DynamicCache

from kamera_agent import Kamera
from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.decoder import ATTENDING, FULL, SLIDING, Decoder
from kamera_agent.runtime.slot_cache import cache_argument


@torch.no_grad()
def keys_of_model(
    kamera: Kamera, chunk: Chunk, embeds: torch.Tensor, positions: torch.Tensor
) -> dict[int, torch.Tensor]:
    """Rotated keys [H, T, D] of a chunk at positions [A, T], by layer that keeps any, from the text model's own cache.

    embeds: decoder inputs, as returned by Engine.embed.
    """
    decoder = kamera.family.decoder
    cache = DynamicCache(config=_without_windows(decoder)) if decoder.recurrence else DynamicCache()
    masks = {kind: _mask(kamera, chunk, kind) if kind in ATTENDING else None for kind in decoder.kinds}
    first, extras = kamera.family.unpack(embeds[None])
    decoder.module(
        inputs_embeds=first,
        position_ids=positions[:, None] if len(positions) > 1 else positions,
        attention_mask=masks if len(masks) > 1 else masks[decoder.kinds[0]],
        **{cache_argument(decoder.module): cache},
        **extras,
    )
    cached = {layer: cache.layers[layer] for layer in decoder.key_modules}
    return {number: layer.values[0] if decoder.values_first else layer.keys[0] for number, layer in cached.items()}


def _without_windows(decoder: Decoder) -> Any:
    """The configuration of a text model that keeps all keys."""
    config = copy(decoder.config)
    config.layer_types = [FULL if kind == SLIDING else kind for kind in decoder.kinds]
    return config


def _mask(kamera: Kamera, chunk: Chunk, kind: str) -> torch.Tensor:
    """Additive mask [1, 1, T, T] of a layer of this kind over the chunk alone."""
    decoder, both_ways = kamera.family.decoder, kamera.family.both_ways(chunk)
    order = torch.arange(len(chunk.token_ids))
    seen = order[None] <= order[:, None]
    if both_ways is not None and kind in decoder.both_ways_kinds:
        seen |= both_ways[None] & both_ways[:, None]
    if kind == SLIDING:
        seen &= order[None] > order[:, None] - decoder.window_tokens
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
