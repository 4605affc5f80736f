"""Canonical KV in int8: K with one step a component, V with one step a token.

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
    (narrow_keys, key_step), (narrow_values, value_step) = _rounded(keys.float(), 1), _rounded(values.float(), 2)
    return narrow_keys, narrow_values, key_step, value_step


def _rounded(states: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    largest = states.abs().amax(dim, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    step = largest / INT8_LARGEST
    return (states / step).round().to(torch.int8), step
