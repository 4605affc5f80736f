"""Tensors of every layer, handed to one launch: a table of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV

# What a 16-byte load needs.
ALIGNMENT_BYTES = 16


class LayerTable(NamedTuple):
    """Where the tensors of a chunk lie, and what they have in common.

    rows: [8, L] int64 on their device: the addresses of K, V, factor U, factor V and the factors' scale, the rank, and
        the addresses of the steps of K and V. Zero where there is none. Nothing keeps the tensors alive: the launch
        must come before the caller lets go of them.
    aligned: whether every tensor begins where a 16-byte load may.
    aligned_ranks: whether every rank is a multiple of 16, so that every row of U begins there, too.
    max_rank: over all layers.
    factor_dtype: of U and V; None without a patch.
    """

    rows: torch.Tensor
    aligned: bool
    aligned_ranks: bool
    max_rank: int
    factor_dtype: torch.dtype | None


def layer_table(canonical: Sequence[LayerKV], factors: Sequence[Factors] | None) -> LayerTable:
    """The table of a chunk: tensors as for reference.rebuild, all on one device, each contiguous."""
    device = canonical[0].keys.device
    patches: Sequence[Factors | None] = [None] * len(canonical) if factors is None else factors
    ranks = [0 if patch is None else patch.u.shape[1] for patch in patches]
    rows = []
    for kv, patch, rank in zip(canonical, patches, ranks, strict=True):
        keys, values, *steps = (_address(tensor, device) for tensor in kv)
        u, v, scale = (_address(tensor, device) for tensor in patch or (None, None, None))
        rows.append([keys, values, u, v, scale, rank, *steps])
    table = torch.tensor([*zip(*rows, strict=True)], dtype=torch.int64, pin_memory=device.type == "cuda")
    return LayerTable(
        rows=table.to(device, non_blocking=True),
        aligned=all(address % ALIGNMENT_BYTES == 0 for row in rows for address in row[:4]),
        aligned_ranks=all(rank % ALIGNMENT_BYTES == 0 for rank in ranks),
        max_rank=max(ranks),
        factor_dtype=factors[0].u.dtype if factors is not None else None,
    )


def _address(tensor: torch.Tensor | None, device: torch.device) -> int:
    if tensor is None:
        return 0
    assert tensor.device == device, f"a tensor lies on {tensor.device}, the others on {device}"
    assert tensor.is_contiguous(), f"strides {tensor.stride()} of a tensor {tuple(tensor.shape)}"
    return tensor.data_ptr()
