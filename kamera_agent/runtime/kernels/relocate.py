"""Keys, turned from their masters to new positions: all layers in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kernels.tiles import load_pairs, rounded, store_pairs, turned

# Tokens per tile, and heads that share a program and its tables. docs/kernels.md, "Configurations", gives the reasons.
BLOCK_TOKENS, BLOCK_HEADS, NUM_WARPS = 32, 4, 8


# Sizes change with every window; specialising on them would compile the kernel again and again.
@triton.jit(do_not_specialize=["start", "num_tokens", "num_slots", "num_planes"])
def relocate_kernel(
    # pointers
    masters,
    keys,
    cos,
    sin,
    index,
    # sizes
    start,
    num_tokens,
    num_slots,
    num_planes,
    # meta
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ONE_TABLE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
):
    """Program (i, j): tokens of block i in BLOCK_HEADS planes [S, DIM] of the pool. A plane is one head of a layer."""
    dtype: tl.constexpr = keys.dtype.element_ty
    tokens = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    row_mask = (tokens < num_tokens)[:, None]
    slots = start + tokens if index is None else tl.load(index + tokens, mask=tokens < num_tokens, other=0)
    slots = slots.to(tl.int64)[:, None] * DIM
    tokens = tokens.to(tl.int64)[:, None]
    first_plane = tl.program_id(1) * BLOCK_HEADS
    if ONE_TABLE:
        table = tokens * WIDTH
        cos_first, cos_second = load_pairs(cos, table, row_mask, WIDTH, PAIRS, INTERLEAVED)
        sin_first, sin_second = load_pairs(sin, table, row_mask, WIDTH, PAIRS, INTERLEAVED)
    for number in range(first_plane, tl.minimum(first_plane + BLOCK_HEADS, num_planes)):
        plane = tl.cast(number, tl.int64)
        rows = slots + plane * num_slots * DIM
        if not ONE_TABLE:
            table = (plane // HEADS * num_tokens + tokens) * WIDTH
            cos_first, cos_second = load_pairs(cos, table, row_mask, WIDTH, PAIRS, INTERLEAVED)
            sin_first, sin_second = load_pairs(sin, table, row_mask, WIDTH, PAIRS, INTERLEAVED)
        first, second = load_pairs(masters, rows, row_mask, WIDTH, PAIRS, INTERLEAVED)
        first, second = turned(first, second, cos_first, cos_second, sin_first, sin_second)
        first, second = rounded(first, dtype), rounded(second, dtype)
        store_pairs(keys, rows, row_mask, first, second, WIDTH, PAIRS, INTERLEAVED)
        if WIDTH < DIM:
            columns = WIDTH + tl.arange(0, REST)[None, :]
            mask = row_mask & (columns < DIM)
            tl.store(keys + rows + columns, tl.load(masters + rows + columns, mask=mask, other=0.0), mask=mask)


def relocate(
    masters: torch.Tensor,
    keys: torch.Tensor,
    slots: Slots,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """As reference.relocate, with sums in float32 and one rounding."""
    num_layers, num_heads, num_slots, dim = masters.shape
    width = cos.shape[-1]
    cos, sin = cos.contiguous(), sin.contiguous()
    assert masters.is_contiguous(), masters.stride()
    assert keys.is_contiguous(), keys.stride()
    num_planes = num_layers * num_heads
    if slots.num_tokens * num_planes == 0:
        return
    start, index = slots.start_and_index(masters.device)
    grid = (triton.cdiv(slots.num_tokens, BLOCK_TOKENS), triton.cdiv(num_planes, BLOCK_HEADS))
    with torch.cuda.device_of(masters):
        relocate_kernel[grid](
            masters,
            keys,
            cos,
            sin,
            index,
            start,
            slots.num_tokens,
            num_slots,
            num_planes,
            HEADS=num_heads,
            DIM=dim,
            WIDTH=width,
            PAIRS=triton.next_power_of_2(width // 2),
            REST=triton.next_power_of_2(max(dim - width, 1)),
            INTERLEAVED=pairs == "interleaved",
            ONE_TABLE=len(cos) == 1,
            BLOCK_TOKENS=BLOCK_TOKENS,
            BLOCK_HEADS=BLOCK_HEADS,
            num_warps=NUM_WARPS,
            enable_fp_fusion=False,
        )
