"""The pages of a layer as tokens.

vLLM shows every layer of its cache as [B, H, N, C]: blocks, heads, tokens of a block, numbers of a token. What is where
in a block is the business of the attention backend, and differs even between dtypes. We let the backend write, and
learn from that where it puts each number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.bank import Heads
from kamera_agent.runtime.kernels.layers import LayerKV

# Whole numbers below this one are exact in every dtype that KV is kept in.
BASE = 128


class Pages:
    """The pages of one layer.

    attention: vLLM's attention of the layer, of which only the writing of KV is used. cache: [B, H, N, C].
    places: as from learn_places(), the same for all layers.
    """

    def __init__(self, attention: Any, cache: torch.Tensor, places: torch.Tensor, heads: Heads) -> None:
        self._attention = attention
        self._cache = cache
        self._places = places
        self._heads = heads
        self._size = cache.shape[2]

    def read(self, block_ids: Sequence[int], tokens: range) -> LayerKV:
        """K after RoPE and V [H, T, D] of some tokens of a request, copied to the CPU. block_ids: all that it has."""
        first, last = tokens.start // self._size, -(-tokens.stop // self._size)
        # A tensor of no numbers is of floats, unless it is told.
        blocks = self._cache[torch.tensor(block_ids[first:last], dtype=torch.long, device=self._cache.device)]
        numbers = blocks.flatten(1)[:, self._places].view(len(blocks), 2, self._size, *self._heads)
        states = numbers.permute(1, 3, 0, 2, 4).flatten(2, 3)
        start = tokens.start - first * self._size
        keys, values = states[:, :, start : start + len(tokens)].cpu().contiguous()
        return LayerKV(keys, values)

    def write(self, block_ids: Sequence[int], tokens: range, kv: LayerKV) -> None:
        """Put K after RoPE and V [H, T, D] into the pages of some tokens of a request."""
        numbers = torch.arange(tokens.start, tokens.stop)
        slots = torch.tensor(block_ids)[numbers // self._size] * self._size + numbers % self._size
        device = self._cache.device
        keys, values = (states.transpose(0, 1).to(device).contiguous() for states in kv[:2])
        self._attention.impl.do_kv_cache_update(self._attention, keys, values, self._cache, slots.to(device))


def learn_places(attention: Any, cache: torch.Tensor, heads: Heads) -> torch.Tensor:
    """Where in a block a backend puts its numbers: [2 · N · H · D], for K and V of each token, head and component.

    A block is given numbers that name their own places, digit by digit, and read back.
    Raises UnsupportedModelError where numbers are not found again, as those of a quantised cache.
    """
    size = cache.shape[2]
    # A block like those of the cache, whatever the order of its dimensions in memory.
    block = torch.empty_strided((1, *cache.shape[1:]), cache.stride(), dtype=cache.dtype, device=cache.device)
    names = torch.arange(2 * size * heads.num * heads.dim, device=cache.device)
    found, weight = torch.zeros_like(names), 1
    if block.numel() != names.numel() or not hasattr(attention.impl, "do_kv_cache_update"):
        raise _unreadable(attention)
    while weight < names.numel():
        keys, values = (names // weight % BASE).to(cache.dtype).view(2, size, *heads)
        block.fill_(-1)
        attention.impl.do_kv_cache_update(attention, keys, values, block, torch.arange(size, device=cache.device))
        found += block.flatten().long() * weight
        weight *= BASE
    if not torch.equal(found.sort().values, names):
        raise _unreadable(attention)
    return found.argsort()


def _unreadable(attention: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The pages of {type(attention.impl).__name__} do not hold the plain K and V of their tokens. Leave "
        "kv_cache_dtype at 'auto', or choose another attention backend."
    )
