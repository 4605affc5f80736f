"""Steps that the kernels share: load and store a tile by pairs, turn it, multiply factors, round.

A tile is some tokens (its rows) by some components of one head. Offsets of rows are int64. Sums are float32, and only
`rounded` converts them to the KV dtype.

Of triton.language only builtins are used. Its @jit helpers (zeros, cdiv, ...) are compiled or interpreted as Triton was
set when it was imported, and these kernels may differ from that.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def rounded(tile, dtype: tl.constexpr):
    """A float32 tile in the KV dtype: rounded to nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        # The interpreter truncates instead of rounding.
        bits = tile.to(tl.uint32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        tile = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        tile = tile.to(dtype)
    return tile


@triton.jit
def pointer(entry, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """The address in an entry of a table, as a pointer. ALIGNED: loads of 16 bytes may begin at it."""
    base = tl.load(entry).to(tl.pointer_type(dtype))
    if ALIGNED:
        base = tl.multiple_of(base, 16)
    return base


@triton.jit
def load_pairs(base, rows, row_mask, WIDTH: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """The first and the second components of all pairs, among WIDTH components: float32 [rows, PAIRS] each.

    rows: offset of component 0 of each row, [rows, 1]. row_mask: the rows that exist, [rows, 1].
    """
    if INTERLEAVED:
        columns = tl.arange(0, 2 * PAIRS)[None, :]
        tile = tl.load(base + rows + columns, mask=row_mask & (columns < WIDTH), other=0).to(tl.float32)
        first, second = split_pairs(tile, PAIRS)
    else:
        columns = tl.arange(0, PAIRS)[None, :]
        mask = row_mask & (columns < WIDTH // 2)
        first = tl.load(base + rows + columns, mask=mask, other=0).to(tl.float32)
        second = tl.load(base + rows + columns + WIDTH // 2, mask=mask, other=0).to(tl.float32)
    return first, second


@triton.jit
def split_pairs(tile, PAIRS: tl.constexpr):
    """The even and the odd columns of a tile [rows, 2 * PAIRS]."""
    return tl.split(tl.reshape(tile, tile.shape[0], PAIRS, 2))


@triton.jit
def store_pairs(
    base, rows, row_mask, first, second, WIDTH: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr
):
    """The inverse of load_pairs, for first and second in the KV dtype."""
    if INTERLEAVED:
        columns = tl.arange(0, 2 * PAIRS)[None, :]
        tile = tl.reshape(tl.join(first, second), first.shape[0], 2 * PAIRS)
        tl.store(base + rows + columns, tile, mask=row_mask & (columns < WIDTH))
    else:
        columns = tl.arange(0, PAIRS)[None, :]
        mask = row_mask & (columns < WIDTH // 2)
        tl.store(base + rows + columns, first, mask=mask)
        tl.store(base + rows + columns + WIDTH // 2, second, mask=mask)


@triton.jit
def turned(first, second, cos_first, cos_second, sin_first, sin_second):
    """The pairs, each turned by its angle."""
    return first * cos_first - second * sin_first, second * cos_second + first * sin_second


@triton.jit
def product(
    factors,
    tokens,
    row_mask,
    columns,
    column_mask,
    NUMBERS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some columns of U V for some tokens: float32 [tokens, columns]. With rank 0, zeros, and nothing is read.

    factors: U [T, rank], V [rank, NUMBERS], the scale [rank] of int8 factors, and the rank.
    tokens, row_mask: rows of U, and those that exist, [tokens, 1] each.
    columns, column_mask: columns of V, and those that exist, [1, columns] each.
    WIDE: products are float32 instead of 16 bits.
    """
    u, v, scale, rank = factors
    scaled: tl.constexpr = u.dtype.element_ty == tl.int8
    total = tl.full((tokens.shape[0], columns.shape[1]), 0.0, tl.float32)
    for start in range(0, rank, BLOCK_RANK):
        across = start + tl.arange(0, BLOCK_RANK)[None, :]
        down = start + tl.arange(0, BLOCK_RANK)[:, None]
        left = tl.load(u + tokens * rank + across, mask=row_mask & (across < rank), other=0)
        right = tl.load(v + down * NUMBERS + columns, mask=column_mask & (down < rank), other=0)
        if not scaled and not WIDE:
            total = tl.dot(left, right, total)
        else:
            left, right = left.to(tl.float32), right.to(tl.float32)
            if scaled:
                left *= tl.load(scale + across, mask=across < rank, other=0.0)
            if WIDE:
                total = tl.dot(left, right, total, input_precision="ieee")
            else:
                # bfloat16 holds an int8 number exactly, but not its product with the scale, which takes two of them.
                high = left.to(tl.bfloat16)
                low = (left - high.to(tl.float32)).to(tl.bfloat16)
                right = right.to(tl.bfloat16)
                total = tl.dot(low, right, tl.dot(high, right, total))
    return total
