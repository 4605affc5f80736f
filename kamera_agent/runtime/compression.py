"""Rounding to int8. A base has one step per component of K, and one step per token of V.

The outliers of K are in the same components of all tokens, those of V in single tokens. Each has a step of its own, so
it does not cost the other numbers their precision (KIVI, arXiv 2402.02750).
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
    """Numbers in int8, and the steps: what one unit of them is worth. All numbers along dim share a step."""
    # All zeros would divide by zero.
    largest = states.abs().amax(dim, keepdim=True).clamp_min(torch.finfo(states.dtype).tiny)
    step = largest / INT8_LARGEST
    return (states / step).round().to(torch.int8), step
