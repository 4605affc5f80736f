"""A chunk, rebuilt in its slots: its base and a patch, with K turned to its positions; all layers in one launch.

One kernel serves heads of K and V (GQA, MHA) and a latent with its k_pe (MLA), and a base in the KV dtype and in
int8. The differences are known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from kamera_agent.runtime.kernels.layer_table import layer_table
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kernels.tiles import (
    INTERPRETED,
    load_pairs,
    pointer,
    product,
    rounded,
    split_pairs,
    store_pairs,
    turned,
)

# docs/kernels.md, "Configurations", gives the reasons.
BLOCK_HEADS, BLOCK_COLUMNS, BLOCK_RANK, NUM_STAGES = 2, 128, 16, 1
# Tokens per tile and warps, by two facts: whether heads of K have more than BLOCK_COLUMNS components, and whether any
# tensor is wider than 16 bits or must be widened from int8.
TILES = {(False, False): (64, 8), (False, True): (16, 8), (True, False): (32, 8), (True, True): (16, 4)}
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.int8: tl.int8}


# Sizes change with every chunk; specialising on them would compile the kernel again and again.
@triton.jit(do_not_specialize=["start", "num_tokens", "num_slots", "num_layers", "table_tokens"])
def rebuild_kernel(
    # pointers
    masters,
    keys,
    values,
    table,
    cos,
    sin,
    index,
    # sizes
    start,
    num_tokens,
    num_slots,
    num_layers,
    table_tokens,
    # meta
    BASE: tl.constexpr,
    FACTOR: tl.constexpr,
    ALIGNED: tl.constexpr,
    ALIGNED_RANKS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    REST: tl.constexpr,
    VALUE_HEADS: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
):
    """Program (i, j, l): in layer l, the tokens of block i, and for them the heads of K or the tiles of V in group j.

    Groups of K come first. A tile of V is BLOCK_COLUMNS components of a head.
    """
    dtype: tl.constexpr = keys.dtype.element_ty
    quantised: tl.constexpr = tl.int8 == BASE
    key_groups: tl.constexpr = (KEY_HEADS + BLOCK_HEADS - 1) // BLOCK_HEADS
    head_tiles: tl.constexpr = (VALUE_DIM + BLOCK_COLUMNS - 1) // BLOCK_COLUMNS
    key_numbers: tl.constexpr = KEY_HEADS * KEY_DIM
    numbers: tl.constexpr = key_numbers + VALUE_HEADS * VALUE_DIM

    layer = tl.program_id(2).to(tl.int64)
    tokens = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    row_mask = (tokens < num_tokens)[:, None]
    slots = start + tokens if index is None else tl.load(index + tokens, mask=tokens < num_tokens, other=0)
    slots = slots.to(tl.int64)[:, None]
    tokens = tokens.to(tl.int64)[:, None]

    entry = table + layer
    u = pointer(entry + 2 * num_layers, FACTOR, ALIGNED)
    v = pointer(entry + 3 * num_layers, FACTOR, ALIGNED)
    scale = pointer(entry + 4 * num_layers, tl.float32, False)
    rank = tl.load(entry + 5 * num_layers).to(tl.int32)
    if ALIGNED_RANKS:
        rank = tl.multiple_of(rank, 16)
    factors = (u, v, scale, rank)
    group = tl.program_id(1)
    if group < key_groups:
        source = pointer(entry, BASE, ALIGNED)
        turns = (layer * table_tokens + tokens) * WIDTH
        first_head = group * BLOCK_HEADS
        for head in range(first_head, tl.minimum(first_head + BLOCK_HEADS, KEY_HEADS)):
            rows = (head * num_tokens + tokens) * KEY_DIM
            target = ((layer * KEY_HEADS + head) * num_slots + slots) * KEY_DIM
            first, second = load_pairs(source, rows, row_mask, WIDTH, PAIRS, INTERLEAVED)
            if quantised:
                steps = pointer(entry + 6 * num_layers, tl.float32, False) + head * KEY_DIM
                step_first, step_second = load_pairs(steps, 0, True, WIDTH, PAIRS, INTERLEAVED)
                first, second = first * step_first, second * step_second
            if BLOCK_RANK > 0:
                if INTERLEAVED:
                    columns = tl.arange(0, 2 * PAIRS)[None, :]
                    column_mask = columns < WIDTH
                    change = product(
                        factors, tokens, row_mask, head * KEY_DIM + columns, column_mask, numbers, BLOCK_RANK, WIDE
                    )
                    change_first, change_second = split_pairs(change, PAIRS)
                else:
                    columns = head * KEY_DIM + tl.arange(0, PAIRS)[None, :]
                    column_mask = tl.arange(0, PAIRS)[None, :] < WIDTH // 2
                    change_first = product(factors, tokens, row_mask, columns, column_mask, numbers, BLOCK_RANK, WIDE)
                    columns += WIDTH // 2
                    change_second = product(factors, tokens, row_mask, columns, column_mask, numbers, BLOCK_RANK, WIDE)
                first, second = first + change_first, second + change_second
            first, second = rounded(first, dtype), rounded(second, dtype)
            store_pairs(masters, target, row_mask, first, second, WIDTH, PAIRS, INTERLEAVED)
            # Loaded here, from the cache: held across the products, the tables would take too many registers.
            cos_first, cos_second = load_pairs(cos, turns, row_mask, WIDTH, PAIRS, INTERLEAVED)
            sin_first, sin_second = load_pairs(sin, turns, row_mask, WIDTH, PAIRS, INTERLEAVED)
            first, second = first.to(tl.float32), second.to(tl.float32)
            first, second = turned(first, second, cos_first, cos_second, sin_first, sin_second)
            first, second = rounded(first, dtype), rounded(second, dtype)
            store_pairs(keys, target, row_mask, first, second, WIDTH, PAIRS, INTERLEAVED)
            if WIDTH < KEY_DIM:
                rest = WIDTH + tl.arange(0, REST)[None, :]
                column_mask = rest < KEY_DIM
                tile = tl.load(source + rows + rest, mask=row_mask & column_mask, other=0).to(tl.float32)
                if quantised:
                    tile *= tl.load(steps + rest, mask=column_mask, other=0.0)
                if BLOCK_RANK > 0:
                    tile += product(
                        factors, tokens, row_mask, head * KEY_DIM + rest, column_mask, numbers, BLOCK_RANK, WIDE
                    )
                tile = rounded(tile, dtype)
                tl.store(masters + target + rest, tile, mask=row_mask & column_mask)
                tl.store(keys + target + rest, tile, mask=row_mask & column_mask)
    else:
        value_source = pointer(entry + num_layers, BASE, ALIGNED)
        first_block = (group - key_groups) * BLOCK_HEADS
        for block in range(first_block, tl.minimum(first_block + BLOCK_HEADS, VALUE_HEADS * head_tiles)):
            value_head = block // head_tiles
            value_rows = value_head * num_tokens + tokens
            value_columns = block % head_tiles * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
            value_column_mask = value_columns < VALUE_DIM
            mask = row_mask & value_column_mask
            value = tl.load(value_source + value_rows * VALUE_DIM + value_columns, mask=mask, other=0).to(tl.float32)
            if quantised:
                value_steps = pointer(entry + 7 * num_layers, tl.float32, False)
                value *= tl.load(value_steps + value_rows, mask=row_mask, other=0.0)
            if BLOCK_RANK > 0:
                places = key_numbers + value_head * VALUE_DIM + value_columns
                value += product(factors, tokens, row_mask, places, value_column_mask, numbers, BLOCK_RANK, WIDE)
            value_target = ((layer * VALUE_HEADS + value_head) * num_slots + slots) * VALUE_DIM
            tl.store(values + value_target + value_columns, rounded(value, dtype), mask=mask)


def rebuild(
    masters: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: Slots,
    base: Sequence[LayerKV],
    factors: Sequence[Factors] | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """As reference.rebuild, with the rotation in float32 and one rounding."""
    num_layers, key_heads, num_slots, key_dim = masters.shape
    value_heads, value_dim = values.shape[1], values.shape[3]
    width = cos.shape[-1]
    cos, sin = cos.contiguous(), sin.contiguous()
    for buffer in (masters, keys, values):
        assert buffer.is_contiguous(), buffer.stride()
    if slots.num_tokens * num_layers == 0:
        return
    start, index = slots.start_and_index(masters.device)
    tensors = layer_table(base, factors)
    numbers = {base[0].keys.dtype, tensors.factor_dtype or masters.dtype, masters.dtype}
    block_tokens, num_warps = TILES[key_dim > BLOCK_COLUMNS, not numbers <= {torch.float16, torch.bfloat16}]
    block_columns = min(BLOCK_COLUMNS, triton.next_power_of_2(value_dim))
    key_groups = triton.cdiv(key_heads, BLOCK_HEADS)
    value_groups = triton.cdiv(value_heads * triton.cdiv(value_dim, block_columns), BLOCK_HEADS)
    grid = (triton.cdiv(slots.num_tokens, block_tokens), key_groups + value_groups, num_layers)
    with torch.cuda.device_of(masters):
        rebuild_kernel[grid](
            masters,
            keys,
            values,
            tensors.rows,
            cos,
            sin,
            index,
            start,
            slots.num_tokens,
            num_slots,
            num_layers,
            0 if len(cos) == 1 else slots.num_tokens,
            BASE=TYPES[base[0].keys.dtype],
            FACTOR=TYPES[tensors.factor_dtype or masters.dtype],
            ALIGNED=tensors.aligned,
            ALIGNED_RANKS=tensors.aligned_ranks,
            KEY_HEADS=key_heads,
            KEY_DIM=key_dim,
            WIDTH=width,
            PAIRS=triton.next_power_of_2(width // 2),
            REST=triton.next_power_of_2(max(key_dim - width, 1)),
            VALUE_HEADS=value_heads,
            VALUE_DIM=value_dim,
            INTERLEAVED=pairs == "interleaved",
            WIDE=INTERPRETED.value or masters.dtype == torch.float32,
            BLOCK_TOKENS=block_tokens,
            BLOCK_HEADS=BLOCK_HEADS,
            BLOCK_COLUMNS=block_columns,
            BLOCK_RANK=BLOCK_RANK if tensors.max_rank else 0,
            num_warps=num_warps,
            num_stages=NUM_STAGES,
            enable_fp_fusion=False,
        )
