"""Layers of the gated delta rule (arXiv 2412.06464).

Such a layer changes its state S [Dk, Dv], per head of values, with every token:

    S <- a (I - b k k^T) S + b k v^T

So a span of any length is an affine map, S <- M S + B. All factors of M are contractions: folds do not grow.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, softplus

from kamera_agent.runtime.recurrence import EVERY, Inputs, Map, Recurrence


class GatedDelta(Recurrence):
    """The layers of Qwen3.5.

    The model's own function for the rule gives the map of a span in one pass: it is linear in the values and the state
    together, so the values [v | 0] after the state [0 | I] end in [B | M].
    """

    kinds = ("linear_attention",)
    parts = ("linear_attn", "conv1d")

    def __init__(self, layers: Mapping[int, nn.Module]) -> None:
        super().__init__(layers)
        self._mixers = [*self.mixers.values()]
        first = self._mixers[0]
        functions = vars(sys.modules[type(first).__module__])
        self._rule: Any = functions["torch_chunk_gated_delta_rule"]
        self._convolution: Any = partial(functions["causal_conv1d_fn"], bias=None, activation=first.activation)
        # Heads and their components.
        self._keys, self._values = (first.num_k_heads, first.head_k_dim), (first.num_v_heads, first.head_v_dim)
        self._scales = torch.stack([mixer.A_log.detach().float().exp() for mixer in self._mixers])
        self._biases = torch.stack([mixer.dt_bias.detach() for mixer in self._mixers])

    def no_memory(self, num_layers: int) -> torch.Tensor:
        (num_heads, size), (_, key_size) = self._values, self._keys
        return torch.zeros(num_layers, num_heads, key_size, size, device=self.weights.device)

    def gates(self, mixer: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a and b are made of [T, H], for what a mixer gets [T, hidden]."""
        return mixer.in_proj_a(hidden), mixer.in_proj_b(hidden)

    def keep(self, layer: int, left: torch.Tensor, columns: torch.Tensor, hidden: torch.Tensor) -> Inputs | Map:
        decay, rate = self.gates(self._mixers[layer], hidden)
        kept = self._smaller(Inputs(columns[None], left[None], decay[None], rate[None]), slice(layer, layer + 1))
        return type(kept)(*(tensor.clone() for tensor in kept))

    def join(self, traces: Sequence[Inputs]) -> Inputs | Map:
        tail = torch.cat([trace.tail for trace in traces], dim=-1)
        decay, rate = (
            torch.cat(parts, dim=1) for parts in zip(*((one.decay, one.rate) for one in traces), strict=True)
        )
        return self._smaller(Inputs(tail, traces[0].left, decay, rate), EVERY)

    def num_bytes(self, num_tokens: int) -> int:
        num_layers, width, _, size = self.weights.shape
        (num_heads, value_size), (_, key_size) = self._values, self._keys
        if num_tokens > self.longest_inputs:
            numbers = width * (size - 1) + num_heads * key_size * (key_size + value_size)
        else:
            numbers = width * (size - 1 + num_tokens) + 2 * num_heads * num_tokens
        return int(num_layers * numbers * self.weights.itemsize)

    @property
    def longest_inputs(self) -> int:
        """The number of tokens up to which their inputs are kept: they take no more room than a map."""
        (num_heads, size), (_, key_size) = self._values, self._keys
        map_size, token_size = num_heads * key_size * (key_size + size), int(self.weights.shape[1]) + 2 * num_heads
        return max(1, int(map_size // token_size))

    def _smaller(self, inputs: Inputs, layers: slice) -> Inputs | Map:
        return inputs if inputs.tail.shape[-1] <= self.longest_inputs else self.map_of(inputs, layers)

    def map_of(self, inputs: Inputs, layers: slice = EVERY) -> Map:
        """The map of a span in some of the layers, in the dtype of its inputs."""
        nothing, size = self.no_memory(len(inputs.tail)), self._keys[1]
        identity = torch.eye(size, device=nothing.device).expand(*nothing.shape[:2], -1, -1)
        both = self._run(inputs, torch.cat([nothing, identity], dim=-1), layers).to(inputs.tail.dtype)
        added, kept = both.split([self._values[1], size], dim=-1)
        return Map(self.tail_of(inputs.tail), kept.contiguous(), added.contiguous())

    def advance(self, memory: torch.Tensor, trace: Inputs | Map, layers: slice) -> torch.Tensor:
        if isinstance(trace, Inputs):
            return self._run(trace, memory, layers)
        added, kept, before = (part.to(memory.dtype).flatten(0, 1) for part in (trace.added, trace.kept, memory))
        return torch.baddbmm(added, kept, before).view_as(memory)

    def _run(self, inputs: Inputs, memory: torch.Tensor, layers: slice) -> torch.Tensor:
        """The memory [L, H, Dk, Dv or more] after the tokens of inputs, which have zeros for values beyond Dv."""
        key, value = self._convolve(torch.cat([inputs.left, inputs.tail], dim=-1), layers)
        after: torch.Tensor
        # Nobody reads what the queries find.
        _, after = self._rule(
            query=key,
            key=key,
            value=pad(value, (0, memory.shape[-1] - value.shape[-1])),
            g=-self._scales[layers, None] * softplus(inputs.decay.float() + self._biases[layers, None]),
            beta=inputs.rate.sigmoid(),
            initial_state=memory,
            output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )
        return after

    def _convolve(self, columns: torch.Tensor, layers: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [L, T, H, Dk] and values [L, T, H, Dv] for each head of values, from columns [L, C, K - 1 + T]."""
        (num_keys, key_size), (num_values, value_size) = self._keys, self._values
        # C has the components of queries, keys and values, in this order.
        first = num_keys * key_size
        weights = self.weights[layers, first:, 0].flatten(0, 1)
        convolved = self._convolution(columns[:, first:].flatten(0, 1)[None], weight=weights)
        # It also gives the columns on the left, after zeros.
        heads = convolved[0, :, weights.shape[-1] - 1 :].unflatten(0, (len(columns), -1)).mT
        key, value = heads.split([first, num_values * value_size], dim=-1)
        key = key.unflatten(-1, self._keys).repeat_interleave(num_values // num_keys, dim=2)
        return key, value.unflatten(-1, self._values)


class InterleavedGatedDelta(GatedDelta):
    """The layers of Qwen3-Next, whose projections put out what belongs to a head of keys in a row."""

    def gates(self, mixer: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rate, decay = mixer.in_proj_ba(hidden).unflatten(-1, (mixer.num_k_heads, -1)).chunk(2, dim=-1)
        return decay.flatten(-2), rate.flatten(-2)
