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

    Scattered queries write to their slots, attention reads every slot. Right only together with a mask that
    knows the slots' order.
    """

    def __init__(self, pool: KVPool, index: SlotIndex) -> None:
        super().__init__(layers=[_SlotLayer(pool, layer, index) for layer in range(pool.shape.num_layers)])


class _SlotLayer(CacheLayerMixin):
    is_compileable = False
    is_sliding = False

    def __init__(self, pool: KVPool, layer: int, index: SlotIndex) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated there
        self._pool, self._layer, self._index = pool, layer, index
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the pool is there before the forward pass."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._pool.keys[self._layer], self._pool.values[self._layer]
        self._index.write(keys, key_states[0])
        self._index.write(values, value_states[0])
        return keys[None], values[None]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._pool.capacity, 0

    def get_seq_length(self) -> int:
        return self._pool.capacity

    def get_max_length(self) -> int:
        return -1
