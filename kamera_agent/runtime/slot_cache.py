"""The pool as a Hugging Face cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

from kamera_agent.runtime.kernels.slots import Index
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.recurrence import State


def cache_argument(module: nn.Module) -> str:
    """The name of the argument for the cache in a model's forward pass, which transformers 5.24 changed."""
    return "cache" if "cache" in signature(module.forward).parameters else "past_key_values"


class KVKnown(Exception):
    """Ends a layer's forward pass once the K and V of its queries are in the pool."""


@dataclass(slots=True)
class Queries:
    """The tokens that a layer computes.

    index: their slots. probed: whether only their K and V are wanted.
    """

    index: Index
    probed: bool = False
    _copies: dict[torch.device, tuple[Index, torch.Tensor]] = field(default_factory=dict)

    def on(self, device: torch.device) -> Index:
        """Their slots, as an index on a device."""
        if isinstance(self.index, slice) or self.index.device == device:
            return self.index
        original, copy = self._copies.get(device, (None, None))
        if copy is None or original is not self.index:
            copy = self.index.to(device)
            self._copies[device] = self.index, copy
        return copy

    @property
    def num_tokens(self) -> int:
        """Number of the tokens."""
        return self.index.stop - self.index.start if isinstance(self.index, slice) else len(self.index)


class Memory(LinearAttentionCacheLayerMixin):
    """The cache of a recurrent layer.

    state: of this layer alone, before a stretch, and after it once it is computed.
    columns [1, C, K - 1 + T]: of that stretch, before the convolution, after the tail of the state before it.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        # Without it, a stretch of one token would not come to update_conv_state().
        self.record_past = True
        self.has_previous_state[0] = True
        self.begin(state)

    def begin(self, state: State) -> None:
        """Let the layer compute a stretch after a state."""
        self.state = state
        self.columns = state.tail
        self.conv_states[0], self.recurrent_states[0] = state

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: a state is there from the beginning."""

    def update_conv_state(self, conv_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.columns = torch.cat([self.state.tail, conv_states], dim=-1)
        tail = self.columns[..., self.columns.shape[-1] - self.state.tail.shape[-1] :]
        self.state = self.state._replace(tail=tail.clone())
        return self.columns

    def update_recurrent_state(self, recurrent_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.state = self.state._replace(memory=recurrent_states.float())
        return recurrent_states


class SlotCache(Cache):
    """Gives a Hugging Face model the pool as its cache.

    Queries write to their slots, and attention gets every slot: what a query sees follows from the slots' order.
    queries: may change from layer to layer. memories: of recurrent layers, by number.
    """

    def __init__(self, pool: KVPool, queries: Queries, memories: Mapping[int, Memory] = MappingProxyType({})) -> None:
        # A model finds its layers by their numbers, so those that keep nothing are there as well.
        numbers = range(max([*pool.rows, *memories]) + 1)
        super().__init__(layers=[memories.get(number) or _SlotLayer(pool, number, queries) for number in numbers])


class _SlotLayer(CacheLayerMixin):
    is_compileable = False
    is_sliding = False

    def __init__(self, pool: KVPool, layer: int, queries: Queries) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers does not annotate it
        self._pool, self._layer, self._queries = pool, layer, queries
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the pool is allocated before the forward pass."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        row = self._pool.rows[self._layer]
        index = self._queries.on(row.bank.shape.device)
        first, second = (row.values, row.keys) if row.bank.shape.values_first else (row.keys, row.values)
        first[:, index] = key_states[0]
        second[:, index] = value_states[0]
        if self._queries.probed:
            raise KVKnown
        return first[None], second[None]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._pool.capacity, 0

    def get_seq_length(self) -> int:
        return self._pool.capacity

    def get_max_length(self) -> int:
        return -1
