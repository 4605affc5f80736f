"""The tensors of all layers for one launch: a table of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV

# What a load of 16 bytes needs.
ALIGNMENT_BYTES = 16


class LayerTable(NamedTuple):
    """The addresses of a chunk's tensors, and what the tensors have in common.

    rows: [8, L] int64 on their device, 0 for a tensor that is absent:

        0, 1     addresses of K and V
        2, 3, 4  addresses of the factors U and V and of their scale
        5        rank
        6, 7     addresses of the steps of K and V

        Addresses do not keep tensors alive: the caller must keep the chunk until the kernel is launched.
    aligned: whether every tensor begins where a load of 16 bytes may.
    aligned_ranks: whether every rank is a multiple of 16, so that every row of U begins at such an address as well.
    max_rank: the largest rank of all layers.
    factor_dtype: the dtype of U and V; None without a patch.
    """

    rows: torch.Tensor
    aligned: bool
    aligned_ranks: bool
    max_rank: int
    factor_dtype: torch.dtype | None


def layer_table(base: Sequence[LayerKV], factors: Sequence[Factors] | None) -> LayerTable:
    """The table of a chunk. Arguments as for reference.rebuild; all tensors are contiguous and on one device."""
    device = base[0].keys.device
    patches: Sequence[Factors | None] = [None] * len(base) if factors is None else factors
    ranks = [0 if patch is None else patch.u.shape[1] for patch in patches]
    rows = []
    for kv, patch, rank in zip(base, patches, ranks, strict=True):
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
    assert tensor.device == device, f"one tensor is on {tensor.device}, the others on {device}"
    assert tensor.is_contiguous(), f"strides {tensor.stride()} of a tensor {tuple(tensor.shape)}"
    return tensor.data_ptr()
