"""Tensors of every layer, handed to one launch: a table of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

# What a 16-byte load needs.
ALIGNMENT_BYTES = 16


class LayerTable(NamedTuple):
    """Where the tensors of a chunk lie, and what they have in common.

    rows: [6, L] int64 on their device: the addresses of K, V, factor U, factor V and the factors' scale, and the rank.
        With int8 K and V [8, L]: the addresses of their scales follow. Zero where there is none. Nothing keeps the
        tensors alive: the launch must come before the caller lets go of them.
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


def layer_table(
    canonical: Sequence[tuple[torch.Tensor, ...]], factors: Sequence[tuple[torch.Tensor, ...]] | None
) -> LayerTable:
    """The table of a chunk: tensors as for reference.rebuild, all on one device, each contiguous."""
    device = canonical[0][0].device
    patches: Sequence[tuple[torch.Tensor, ...]] = [()] * len(canonical) if factors is None else factors
    ranks = [patch[0].shape[1] if patch else 0 for patch in patches]
    rows = []
    for kv, patch, rank in zip(canonical, patches, ranks, strict=True):
        keys, values, *scales = (_address(tensor, device) for tensor in kv)
        addresses = [_address(tensor, device) for tensor in patch]
        rows.append([keys, values, *addresses, *[0] * (3 - len(addresses)), rank, *scales])
    table = torch.tensor([*zip(*rows, strict=True)], dtype=torch.int64, pin_memory=device.type == "cuda")
    factor_dtype = factors[0][0].dtype if factors is not None else None
    return LayerTable(
        rows=table.to(device, non_blocking=True),
        aligned=all(address % ALIGNMENT_BYTES == 0 for row in rows for address in row[:4]),
        aligned_ranks=all(rank % ALIGNMENT_BYTES == 0 for rank in ranks),
        max_rank=max(ranks),
        factor_dtype=factor_dtype,
    )


def _address(tensor: torch.Tensor, device: torch.device) -> int:
    assert tensor.device == device, f"a tensor lies on {tensor.device}, the others on {device}"
    assert tensor.is_contiguous(), f"strides {tensor.stride()} of a tensor {tuple(tensor.shape)}"
    return tensor.data_ptr()
