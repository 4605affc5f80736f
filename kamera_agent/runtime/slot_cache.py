"""The pool as a Hugging Face cache."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from kamera_agent.runtime.kernels.slots import Index
from kamera_agent.runtime.kv_pool import KVPool


def cache_argument(module: nn.Module) -> str:
    """The argument by which a model's forward pass takes its cache: transformers 5.24 gave it another name."""
    return "cache" if "cache" in signature(module.forward).parameters else "past_key_values"


class SlotCache(Cache):
    """Gives a Hugging Face model the pool as its cache.

    Scattered queries write to their slots, attention reads every slot: right only together with a mask that knows
    the slots' order. num_fresh: tokens of a window that is computed whole, in order, into the first slots, or 0. The
    cache of such a window looks like an empty one that is filled for the first time, and the model's own mask, or none,
    is right.
    """

    def __init__(self, pool: KVPool, index: Index, num_fresh: int) -> None:
        super().__init__(layers=[_SlotLayer(pool, layer, index, num_fresh) for layer in range(pool.shape.num_layers)])


class _SlotLayer(CacheLayerMixin):
    is_compileable = False
    is_sliding = False

    def __init__(self, pool: KVPool, layer: int, index: Index, num_fresh: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated there
        self._pool, self._layer, self._index = pool, layer, index
        self._length = num_fresh or pool.capacity
        self._num_fresh = num_fresh
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the pool is there before the forward pass."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        buffers = self._pool.keys[self._layer], self._pool.values[self._layer]
        first, second = reversed(buffers) if self._pool.shape.values_first else buffers
        first[:, self._index] = key_states[0]
        second[:, self._index] = value_states[0]
        return first[None, :, : self._length], second[None, :, : self._length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length, 0

    def get_seq_length(self) -> int:
        return self._length - self._num_fresh

    def get_max_length(self) -> int:
        return -1
