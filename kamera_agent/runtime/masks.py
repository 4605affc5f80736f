"""Which slots a query sees, by kind of layer, and the masks that say so."""

from __future__ import annotations

from typing import NamedTuple

import torch

from kamera_agent.runtime.families.decoder import ATTENDING, SLIDING, Decoder
from kamera_agent.runtime.kernels.slots import Index
from kamera_agent.runtime.kernels.transfer import sent
from kamera_agent.runtime.kv_pool import CAUSAL, KVPool


class Places(NamedTuple):
    """The places of tokens in a window, as a pool keeps them: order [T], block [T]."""

    order: torch.Tensor
    block: torch.Tensor

    def at(self, index: Index) -> Places:
        """Of some of the tokens. index: on the CPU."""
        return Places(self.order[index], self.block[index])


def reached(decoder: Decoder, kind: str, queries: Places, keys: Places) -> torch.Tensor:
    """Which keys are not too late for a query [Q, S] bool.

    Keys whose order is not above the query's, and where the model sees both ways, those of its block.
    """
    # Slots are compared by their order, never by their number. A free slot has an order above every query's.
    causal = keys.order <= queries.order[:, None]
    if kind not in decoder.both_ways_kinds:
        return causal
    block = queries.block[:, None]
    return causal | ((keys.block == block) & (block != CAUSAL))


def remembered(decoder: Decoder, kind: str, queries: Places, keys: Places) -> torch.Tensor:
    """Which keys are not too early for a query [Q, S] bool: in a sliding layer, less than window_tokens before it."""
    if kind != SLIDING:
        return torch.ones(len(queries.order), len(keys.order), dtype=torch.bool)
    # The distance is counted in tokens, as models count it: under M-RoPE, neighbours may share a position. It is
    # negative for a later token of the same block, which stays visible.
    return queries.order[:, None] - keys.order < decoder.window_tokens


def make_masks(decoder: Decoder, pool: KVPool, index: Index) -> dict[str, torch.Tensor]:
    """An additive mask [1, 1, Q, S] per kind of layer, for the queries in the slots of an index."""
    keys = Places(pool.order, pool.block)
    queries = keys.at(index if isinstance(index, slice) else index.to(pool.order.device))
    seen = {
        kind: reached(decoder, kind, queries, keys) & remembered(decoder, kind, queries, keys)
        for kind in {*decoder.kinds} & {*ATTENDING}
    }
    return {kind: additive(slots, decoder.dtype, decoder.device)[None, None] for kind, slots in seen.items()}


def additive(seen: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A mask that is added to scores, from a bool one.

    Eager attention adds any mask, and would add a bool one as 0 and 1.
    """
    mask = torch.zeros(seen.shape, dtype=dtype)
    return sent(mask.masked_fill_(~seen, torch.finfo(dtype).min), device)
