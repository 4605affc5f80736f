"""Which slots a query sees, by kind of layer."""

from __future__ import annotations

import torch

from kamera_agent.runtime.families.decoder import SLIDING, Decoder
from kamera_agent.runtime.kernels.slots import Index
from kamera_agent.runtime.kv_pool import CAUSAL, KVPool


def make_masks(decoder: Decoder, pool: KVPool, index: Index, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Per kind of layer an additive mask [1, 1, Q, S] for the queries that lie in the slots of an index.

    A query sees the slots whose order is not above its own and those of its block, in a sliding layer none that lie
    window_tokens or more before it. Additive, because eager attention adds a boolean mask as numbers.
    """
    order, block = pool.order[index, None], pool.block[index, None]
    before = pool.order <= order
    visible = before | ((pool.block == block) & (block != CAUSAL))
    seen = {kind: visible if kind in decoder.both_ways_kinds else before for kind in set(decoder.kinds)}
    if SLIDING in seen:
        seen[SLIDING] = seen[SLIDING] & (order - pool.order < decoder.window_tokens)
    return {kind: _additive(visible, dtype) for kind, visible in seen.items()}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]
