"""What the kernels do to a tile: load and store it by pairs, turn it, add factors up, round.

A tile is some tokens (its rows) by some components of one head. Offsets of rows are int64. Sums are float32, and
`rounded` is the only way back to the KV dtype.

Of triton.language only builtins are used: its @jit helpers (zeros, cdiv, ...) are compiled or interpreted as triton was
when it was imported, whatever these are.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def rounded(tile, dtype: tl.constexpr):
    """float32 to the KV dtype: to the nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        # The interpreter would cut the bits off.
        bits = tile.to(tl.uint32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        tile = (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        tile = tile.to(dtype)
    return tile


@triton.jit
def pointer(entry, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """The address that lies at an entry of a table, as a pointer. ALIGNED: 16-byte loads may begin there."""
    base = tl.load(entry).to(tl.pointer_type(dtype))
    if ALIGNED:
        base = tl.multiple_of(base, 16)
    return base


@triton.jit
def load_pairs(base, rows, seen, WIDTH: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """First and second components of the pairs among WIDTH components: float32 [rows, PAIRS] each.

    rows: offsets [rows, 1] of the components 0. seen: which rows there are.
    """
    if INTERLEAVED:
        columns = tl.arange(0, 2 * PAIRS)[None, :]
        tile = tl.load(base + rows + columns, mask=seen & (columns < WIDTH), other=0).to(tl.float32)
        first, second = split_pairs(tile, PAIRS)
    else:
        columns = tl.arange(0, PAIRS)[None, :]
        there = seen & (columns < WIDTH // 2)
        first = tl.load(base + rows + columns, mask=there, other=0).to(tl.float32)
        second = tl.load(base + rows + columns + WIDTH // 2, mask=there, other=0).to(tl.float32)
    return first, second


@triton.jit
def split_pairs(tile, PAIRS: tl.constexpr):
    """The even and the odd columns of a tile [rows, 2 * PAIRS]."""
    return tl.split(tl.reshape(tile, tile.shape[0], PAIRS, 2))


@triton.jit
def store_pairs(base, rows, seen, first, second, WIDTH: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """The way back: first and second, in the KV dtype, to where load_pairs finds them."""
    if INTERLEAVED:
        columns = tl.arange(0, 2 * PAIRS)[None, :]
        tile = tl.reshape(tl.join(first, second), first.shape[0], 2 * PAIRS)
        tl.store(base + rows + columns, tile, mask=seen & (columns < WIDTH))
    else:
        columns = tl.arange(0, PAIRS)[None, :]
        there = seen & (columns < WIDTH // 2)
        tl.store(base + rows + columns, first, mask=there)
        tl.store(base + rows + columns + WIDTH // 2, second, mask=there)


@triton.jit
def turned(first, second, cos_first, cos_second, sin_first, sin_second):
    """The pairs, each turned by its own angle."""
    return first * cos_first - second * sin_first, second * cos_second + first * sin_second


@triton.jit
def product(
    factors,
    tokens,
    seen,
    columns,
    there,
    NUMBERS: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Some columns of U V: float32 [tokens, columns]. Zero, and nothing read, where the rank is 0.

    factors: (U [T, rank], V [rank, NUMBERS], scale [rank] of int8 factors, rank). tokens, columns: rows of U as
    [tokens, 1] and columns of V as [1, columns]; seen, there: which of them there are. WIDE: products are float32, too.
    """
    u, v, scale, rank = factors
    scaled: tl.constexpr = u.dtype.element_ty == tl.int8
    total = tl.full((tokens.shape[0], columns.shape[1]), 0.0, tl.float32)
    for start in range(0, rank, BLOCK_RANK):
        across = start + tl.arange(0, BLOCK_RANK)[None, :]
        down = start + tl.arange(0, BLOCK_RANK)[:, None]
        left = tl.load(u + tokens * rank + across, mask=seen & (across < rank), other=0)
        right = tl.load(v + down * NUMBERS + columns, mask=there & (down < rank), other=0)
        if not scaled and not WIDE:
            total = tl.dot(left, right, total)
        else:
            left, right = left.to(tl.float32), right.to(tl.float32)
            if scaled:
                left *= tl.load(scale + across, mask=across < rank, other=0.0)
            if WIDE:
                total = tl.dot(left, right, total, input_precision="ieee")
            else:
                # int8 is exact in bfloat16; what the scale adds takes two of them.
                high = left.to(tl.bfloat16)
                low = (left - high.to(tl.float32)).to(tl.bfloat16)
                right = right.to(tl.bfloat16)
                total = tl.dot(low, right, tl.dot(high, right, total))
    return total
