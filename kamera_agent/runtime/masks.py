"""Attention masks: which slots a query sees, by kind of layer."""

from __future__ import annotations

import torch

from kamera_agent.runtime.families.decoder import SLIDING, Decoder
from kamera_agent.runtime.kernels.slots import Index
from kamera_agent.runtime.kv_pool import CAUSAL, KVPool


def make_masks(decoder: Decoder, pool: KVPool, index: Index, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """An additive mask [1, 1, Q, S] per kind of layer, for the queries in the slots of an index.

    A query sees the slots whose order is not above its own. Where the model sees both ways, it also sees its block; in
    a sliding layer, it sees no slot that is window_tokens or more before it.

    The mask is additive because eager attention adds a mask to the scores, and would add a boolean one as 0 and 1.
    """
    # Slots are compared by their order, never by their number. A free slot has an order above every query's.
    order, block = pool.order[index, None], pool.block[index, None]
    causal = pool.order <= order
    with_block = causal | ((pool.block == block) & (block != CAUSAL))
    visible = {kind: with_block if kind in decoder.both_ways_kinds else causal for kind in set(decoder.kinds)}
    if SLIDING in visible:
        # The distance is counted in tokens, as models count it: under M-RoPE, neighbours may share a position. It is
        # negative for a later token of the same block, which stays visible.
        visible[SLIDING] = visible[SLIDING] & (order - pool.order < decoder.window_tokens)
    return {kind: _additive(slots, dtype) for kind, slots in visible.items()}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]
