"""The pool as a Hugging Face cache."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from kamera_agent.runtime.kv_pool import KVPool


def cache_argument(module: nn.Module) -> str:
    """The argument by which a model's forward pass takes its cache: transformers 5.24 gave it another name."""
    return "cache" if "cache" in signature(module.forward).parameters else "past_key_values"


class SlotIndex:
    """The slots that the queries of one forward pass write to, as a slice where they lie in one range."""

    def __init__(self, slots: Sequence[range], device: torch.device) -> None:
        self.num_slots = sum(map(len, slots))
        joined = all(before.stop == behind.start for before, behind in pairwise(slots))
        self.index: slice | torch.Tensor = (
            slice(slots[0].start, slots[-1].stop)
            if joined
            else torch.cat([torch.arange(part.start, part.stop, device=device) for part in slots])
        )

    def write(self, buffer: torch.Tensor, states: torch.Tensor) -> None:
        """buffer[:, slots] = states, for buffer [H, S, D] and states [H, Q, D]."""
        buffer[:, self.index] = states


class SlotCache(Cache):
    """Gives a Hugging Face model the pool as its cache.

    Scattered queries write to their slots, attention reads every slot: right only together with a mask that knows
    the slots' order. fresh: the queries are the whole window, in order, in the first slots; the cache looks like an
    empty one that is filled for the first time, and the model's own mask, or none, is right.
    """

    def __init__(self, pool: KVPool, index: SlotIndex, *, fresh: bool) -> None:
        num_layers = pool.shape.num_layers
        super().__init__(layers=[_SlotLayer(pool, layer, index, fresh) for layer in range(num_layers)])


class _SlotLayer(CacheLayerMixin):
    is_compileable = False
    is_sliding = False

    def __init__(self, pool: KVPool, layer: int, index: SlotIndex, fresh: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated there
        self._pool, self._layer, self._index = pool, layer, index
        self._length = index.num_slots if fresh else pool.capacity
        self._num_new = index.num_slots if fresh else 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the pool is there before the forward pass."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        buffers = self._pool.keys[self._layer], self._pool.values[self._layer]
        first, second = reversed(buffers) if self._pool.shape.values_first else buffers
        self._index.write(first, key_states[0])
        self._index.write(second, value_states[0])
        return first[None, :, : self._length], second[None, :, : self._length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length, 0

    def get_seq_length(self) -> int:
        return self._length - self._num_new

    def get_max_length(self) -> int:
        return -1
