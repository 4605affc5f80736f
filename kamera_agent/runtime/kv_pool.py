"""The KV pool of one window: its slots, the masters before RoPE, and the working copy that attention reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.dispatch import kernels_for
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, on_device
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.upload import Group, Upload

# Above every place in a window, so that no query sees a free slot.
FREE = torch.iinfo(torch.int64).max
# Not a place in a window, so that no block has this number.
CAUSAL = -1
CPU = torch.device("cpu")
# Free slots per used one: in a pool that grows within a turn, and in one that is made to fit.
GROWTH, SPARE = 1 / 16, 1 / 8
# A pool fits while it has no fewer than a usual turn takes, and no more than it may keep.
LEAST, MOST = 1 / 20, 0.15


class Heads(NamedTuple):
    """The number of key or value heads in a layer, and of the components of one head."""

    num: int
    dim: int


class KVShape(NamedTuple):
    """Shapes of a backbone's keys and values, where they are, and in which dtype.

    keys: heads of the part that RoPE turns (for MLA k_pe, one head). values: heads of the part without a position (for
        MLA the latent c_KV, one head).
    pairs: the components of a key that RoPE turns together.
    values_first: whether the model passes its cache the values before the keys.
    """

    num_layers: int
    keys: Heads
    values: Heads
    dtype: torch.dtype
    device: torch.device
    pairs: Pairs = "half"
    values_first: bool = False

    @property
    def token_bytes(self) -> int:
        """Bytes of the K and V of one token, over all layers."""
        numbers = self.keys.num * self.keys.dim + self.values.num * self.values.dim
        return self.num_layers * numbers * self.dtype.itemsize


class KVPool:
    """Slots for the tokens of one window.

    masters  [L, Hk, S, Dk]  K before RoPE
    keys     [L, Hk, S, Dk]  K turned to the position that the token has now; attention reads it
    values   [L, Hv, S, Dv]  V, which has no position
    order    [S] int64       the token's place in the window; FREE in a free slot; on the CPU, as is
    block    [S] int64       the place of the first token of its block; CAUSAL for a token outside a block

    Attention does not depend on the slot of a key, so moving a span rewrites its turned keys and nothing else. K is
    kept twice because attention needs every key turned, while a move must start from the master: keys that are turned
    again and again would gather a rounding error with every move. The tokens of a block see each other both ways.
    """

    def __init__(self, shape: KVShape) -> None:
        self.shape = shape
        self._kernels = kernels_for(shape.device)
        self._upload: Upload | None = None
        self.masters: torch.Tensor
        self.keys: torch.Tensor
        self.values: torch.Tensor
        self.order: torch.Tensor
        self.block: torch.Tensor
        self._free: Slots
        self._resize(0, ())

    def _resize(self, capacity: int, spans: Sequence[Slots]) -> None:
        """Copy the spans into buffers of another size.

        slots   [0, n0)      [n0, n0 + n1)  ...  [used, capacity)
                first span   second span    ...  free
        """
        shape = self.shape
        kept = [part for span in spans for _, part in span.parts()]
        used = sum(span.num_tokens for span in spans)
        for name, heads in (("masters", shape.keys), ("keys", shape.keys), ("values", shape.values)):
            size = (shape.num_layers, heads.num, capacity, heads.dim)
            buffer = torch.empty(size, dtype=shape.dtype, device=shape.device)
            if kept:
                old = getattr(self, name)
                torch.cat([old[:, :, part] for part in kept], 2, out=buffer[:, :, :used])
            # Attention reads free slots, too: it gives them a weight of zero, and zero times NaN would be NaN.
            buffer[:, :, used:] = 0
            setattr(self, name, buffer)
        for name, nothing in (("order", FREE), ("block", CAUSAL)):
            taken = [getattr(self, name)[part] for part in kept]
            setattr(self, name, torch.cat([*taken, torch.full((capacity - used,), nothing)]))
        self._free = Slots((range(used, capacity),))

    @property
    def capacity(self) -> int:
        """Number of slots, used and free."""
        return self.order.shape[0]

    @property
    def num_free(self) -> int:
        """Number of free slots."""
        return self._free.num_tokens

    @property
    def num_bytes(self) -> int:
        """Bytes of masters and working copy, free slots included."""
        return self.masters.nbytes + self.keys.nbytes + self.values.nbytes

    def allocate(self, num_tokens: int) -> Slots:
        """Take slots for num_tokens tokens: one range where a free one is long enough. Grows the pool if it must."""
        self.reserve(num_tokens)
        # Ranges that are long enough come first (False before True): a span in one range is read and written by slices.
        free = sorted(self._free.ranges, key=lambda part: len(part) < num_tokens)
        taken, left = Slots(tuple(free)).split(num_tokens)
        self._free = _in_order(left.ranges)
        return taken

    def free(self, slots: Slots) -> None:
        """Give slots back. Their numbers, which are finite, stay until the slots are taken again."""
        self.hide(slots)
        self._free = _in_order((*self._free.ranges, *slots.ranges))

    def hide(self, slots: Slots) -> None:
        """Keep a span from attention until place() shows it again."""
        index = slots.index(CPU)
        self.order[index] = FREE
        self.block[index] = CAUSAL

    def reclaim(self, spans: Sequence[Slots]) -> None:
        """Free every slot that none of these spans owns, such as those that an interrupted answer had taken."""
        owned = sorted((part for span in spans for part in span.ranges), key=lambda part: part.start)
        gaps = zip([0, *(part.stop for part in owned)], [*(part.start for part in owned), self.capacity], strict=True)
        self._free = Slots()
        self.free(Slots(tuple(range(start, stop) for start, stop in gaps)))

    def reserve(self, num_tokens: int, num_more: int = 0) -> None:
        """Make room for num_tokens more tokens. Copies the whole pool when it is too small.

        num_more: tokens that there is room for as well if it is copied.
        """
        missing = num_tokens - self.num_free
        if missing > 0:
            # slots   [0, before)         [before, capacity)
            #         as they were        free
            before, free = self.capacity, self._free
            needed = before + missing
            self._resize(needed + max(num_more, int(GROWTH * needed)), [Slots((range(before),))])
            self.free(free)

    @property
    def fits(self) -> bool:
        """Whether a usual turn finds room in the pool, and the pool has little more than that."""
        used = self.capacity - self.num_free
        return int(LEAST * used) <= self.num_free <= MOST * used

    def compact(self, spans: Sequence[Slots]) -> list[Slots]:
        """Copy the spans into buffers that fit; returns their new slots, in the same order."""
        ends = list(accumulate((span.num_tokens for span in spans), initial=0))
        self._resize(ends[-1] + int(SPARE * ends[-1]), spans)
        return [Slots((range(start, end),)) for start, end in pairwise(ends)]

    def take(self, other: KVPool, spans: Sequence[Slots]) -> list[Slots]:
        """Copy spans of another pool, with their places; returns their slots here, in the same order."""
        self.reserve(sum(span.num_tokens for span in spans))
        taken = []
        for span in spans:
            slots = self.allocate(span.num_tokens)
            here, there = slots.index(self.shape.device), span.index(self.shape.device)
            for name in ("masters", "keys", "values"):
                getattr(self, name)[:, :, here] = getattr(other, name)[:, :, there]
            here, there = slots.index(CPU), span.index(CPU)
            self.order[here], self.block[here] = other.order[there], other.block[there]
            taken.append(slots)
        return taken

    def place(self, slots: Slots, order: int, both_ways: torch.Tensor | None = None) -> None:
        """Enter the places of a span's tokens in the window: order, order + 1, ...

        both_ways: [T] bool, the tokens that also see later ones. Neighbours among them form a block, and every token
            of a block sees the whole block. None: all tokens are causal.
        """
        orders = torch.arange(order, order + slots.num_tokens)
        blocks = torch.full_like(orders, CAUSAL) if both_ways is None else _blocks(orders, both_ways.cpu())
        index = slots.index(CPU)
        self.order[index] = orders
        self.block[index] = blocks

    def relocate(self, slots: Slots, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Rewrite the turned keys of a span from its masters. cos, sin: [1 or L, T, R] at its new positions."""
        self._kernels.relocate(self.masters, self.keys, slots, cos, sin, self.shape.pairs)

    def load(
        self,
        slots: Slots,
        base: Sequence[LayerKV],
        factors: Sequence[Factors] | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> None:
        """Rebuild a chunk in its slots: its base plus a patch, then one rotation to its positions.

        base, factors: per layer, on the CPU or on the pool's device; factors: None for a base as it is. Neither is
            written to.
        cos, sin: [1 or L, T, R] at its positions.
        """
        for layers, kv, patch in self._groups(base, factors):
            turns = (cos, sin) if len(cos) == 1 else (cos[layers], sin[layers])
            buffers = self.masters[layers], self.keys[layers], self.values[layers]
            self._kernels.rebuild(*buffers, slots, kv, patch, *turns, self.shape.pairs)

    def _groups(self, base: Sequence[LayerKV], factors: Sequence[Factors] | None) -> Iterable[Group]:
        """The layers of a chunk on the pool's device: group by group from the CPU to a GPU, all at once otherwise."""
        if self.shape.device.type == "cuda" and not base[0].keys.is_cuda:
            if self._upload is None:
                self._upload = Upload(self.shape.device)
            return self._upload.groups(base, factors)
        kv = [on_device(layer, self.shape.device) for layer in base]
        patch = None if factors is None else [on_device(layer, self.shape.device) for layer in factors]
        return [Group(slice(0, len(kv)), kv, patch)]

    def read(self, slots: Slots) -> tuple[LayerKV, ...]:
        """A copy of a span's KV, per layer. The caller owns it."""
        # Another thread uses it while this window goes on, so even a single range must not be a view; cat copies.
        masters, values = (
            torch.cat([buffer[:, :, part] for _, part in slots.parts()], dim=2)
            for buffer in (self.masters, self.values)
        )
        return tuple(map(LayerKV, masters.unbind(), values.unbind()))

    def check_integrity(self, spans: Sequence[Slots]) -> None:
        """Assert that the spans' slots and the free list cover every slot exactly once."""
        owned = sorted(slot for slots in spans for part in slots.ranges for slot in part)
        free = sorted(slot for part in self._free.ranges for slot in part)
        assert len(set(owned)) == len(owned), "two spans share a slot"
        assert sorted(owned + free) == list(range(self.capacity)), (
            f"slots leaked: {len(owned)} owned, {len(free)} free, {self.capacity} in all"
        )
        assert all(self.order[slot] == FREE for slot in free), "a free slot is visible to attention"


def _blocks(orders: torch.Tensor, both_ways: torch.Tensor) -> torch.Tensor:
    """Block of each token [T]: the place of the block's first token; CAUSAL for a token in none.

    both_ways  0  1  1  0  1  1
    first      0  1  0  0  1  0
    block      -  1  1  -  4  4     for orders from 0 on
    """
    first = both_ways.clone()
    first[1:] &= ~both_ways[:-1]
    latest = torch.where(first, orders, CAUSAL).cummax(0).values
    return torch.where(both_ways, latest, CAUSAL)


def _in_order(free: Sequence[range]) -> Slots:
    return Slots(tuple(sorted(free, key=lambda part: part.start)))
