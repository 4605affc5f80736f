"""Rounding to int8, and canonical KV in it: K with one step a component, V with one step a token.

Outliers of K sit in the same components of all tokens, those of V in a token; each keeps its own step (KIVI,
arXiv 2402.02750).
"""

from __future__ import annotations

import torch

INT8_LARGEST = 127


def compressed(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """K and V in int8 and their steps in float32, as reference.rebuild takes them.

    keys: K before RoPE [Hk, T, Dk]. values: V [Hv, T, Dv]. Returns (K, V, step of K [Hk, 1, Dk], step of V [Hv, T, 1]).
    """
    (narrow_keys, key_step), (narrow_values, value_step) = to_int8(keys.float(), 1), to_int8(values.float(), 2)
    return narrow_keys, narrow_values, key_step, value_step


def to_int8(states: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers in int8, and the steps in float32 that they are worth: one for each place along the other dimensions."""
    largest = states.abs().amax(dim, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    step = largest / INT8_LARGEST
    return (states / step).round().to(torch.int8), step
