"""Rounding to int8, and canonical KV in it: K with one step a component, V with one step a token.

Outliers of K sit in the same components of all tokens, those of V in a token; each keeps its own step (KIVI,
arXiv 2402.02750).
"""

from __future__ import annotations

import torch

from kamera_agent.runtime.kernels.layers import LayerKV

INT8_LARGEST = 127


def compressed(layer: LayerKV) -> LayerKV:
    """A layer in the KV dtype, rounded to int8."""
    keys, key_steps = to_int8(layer.keys.float(), 1)
    values, value_steps = to_int8(layer.values.float(), 2)
    return LayerKV(keys, values, key_steps, value_steps)


def to_int8(states: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers in int8, and the steps in float32 that they are worth: one for each place along the other dimensions."""
    largest = states.abs().amax(dim, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    step = largest / INT8_LARGEST
    return (states / step).round().to(torch.int8), step
