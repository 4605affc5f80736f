"""The KV pool of one window: slots, masters before RoPE, and the rotated working copy."""

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

FREE = torch.iinfo(torch.int64).max
CAUSAL = -1


class Heads(NamedTuple):
    """Key or value heads of a layer, and the numbers in one of them."""

    num: int
    dim: int


class KVShape(NamedTuple):
    """What a backbone's keys and values look like.

    keys, values: heads of what RoPE turns, and of what has no position. For MLA k_pe and c_KV, of one head each.
    pairs: which components of a key RoPE turns together.
    values_first: whether the model hands its cache the values before the keys.
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
        """Bytes of one token's K and V over all layers."""
        numbers = self.keys.num * self.keys.dim + self.values.num * self.values.dim
        return self.num_layers * numbers * self.dtype.itemsize


class KVPool:
    """Slots for the tokens of one window.

    masters  [L, H, S, D]  K before RoPE; every relocation starts from it
    keys     [L, H, S, D]  K rotated to the token's present position; attention reads it
    values   [L, H, S, D]  V; position-free, in heads of its own
    order    [S]           place of the slot's token in the window; FREE where no token lies
    block    [S]           number of the block whose tokens see each other both ways; CAUSAL for all others

    A span's slots are a tuple of half-open ranges in token order. Attention does not care in which slot a
    key lies, so moving a span rewrites its rotated keys and nothing else. Free slots hold finite numbers:
    a masked slot is multiplied by a weight of zero, and zero times NaN would be NaN.
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
        """Buffers of another size: the slots of the spans come first, in their order, then free ones."""
        shape = self.shape
        kept = [part for span in spans for _, part in span.parts()]
        used = sum(span.num_tokens for span in spans)
        for name, heads in (("masters", shape.keys), ("keys", shape.keys), ("values", shape.values)):
            size = (shape.num_layers, heads.num, capacity, heads.dim)
            buffer = torch.empty(size, dtype=shape.dtype, device=shape.device)
            if kept:
                old = getattr(self, name)
                torch.cat([old[:, :, part] for part in kept], 2, out=buffer[:, :, :used])
            buffer[:, :, used:] = 0
            setattr(self, name, buffer)
        for name, nothing in (("order", FREE), ("block", CAUSAL)):
            taken = [getattr(self, name)[part] for part in kept]
            setattr(self, name, torch.cat([*taken, torch.full((capacity - used,), nothing, device=shape.device)]))
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
        """Slots for num_tokens tokens, in one range where one is long enough. Grows the pool if it must."""
        self.reserve(num_tokens)
        # False comes first: the ranges that are long enough, then the others.
        free = sorted(self._free.ranges, key=lambda part: len(part) < num_tokens)
        taken, left = Slots(tuple(free)).split(num_tokens)
        self._free = _in_order(left.ranges)
        return taken

    def free(self, slots: Slots) -> None:
        """Give slots back. Their bytes stay until they are taken again."""
        index = slots.index(self.shape.device)
        self.order[index] = FREE
        self.block[index] = CAUSAL
        self._free = _in_order((*self._free.ranges, *slots.ranges))

    def reserve(self, num_tokens: int) -> None:
        """Make room for num_tokens more tokens. Copies the pool when it is too small."""
        missing = num_tokens - self.num_free
        if missing > 0:
            free, used = self._free, self.capacity
            self._resize(_with_slack(used + missing), [Slots((range(used),))])
            self.free(free)

    def compact(self, spans: Sequence[Slots]) -> list[Slots]:
        """Copy the spans into a pool that just holds them; returns their new slots, in the same order."""
        ends = list(accumulate((span.num_tokens for span in spans), initial=0))
        self._resize(_with_slack(ends[-1]), spans)
        return [Slots((range(start, end),)) for start, end in pairwise(ends)]

    def place(self, slots: Slots, order: int, both_ways: torch.Tensor | None = None) -> None:
        """Say where in the window the tokens of these slots stand: order, order + 1, ...

        both_ways: [T] bool, which of them see each other whatever their order, neighbours among themselves; None for
        none.
        """
        orders = torch.arange(order, order + slots.num_tokens, device=self.shape.device)
        blocks = torch.full_like(orders, CAUSAL) if both_ways is None else _blocks(orders, both_ways)
        index = slots.index(self.shape.device)
        self.order[index] = orders
        self.block[index] = blocks

    def relocate(self, slots: Slots, cos: torch.Tensor, sin: torch.Tensor) -> None:
        """Rewrite the rotated keys of a span from its masters. cos, sin: [1 or L, T, R] at its new positions."""
        self._kernels.relocate(self.masters, self.keys, slots, cos, sin, self.shape.pairs)

    def load(
        self,
        slots: Slots,
        canonical: Sequence[LayerKV],
        factors: Sequence[Factors] | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> None:
        """Rebuild a chunk in its slots: canonical + patch, then one rotation to its positions.

        canonical, factors: per layer, on any one device; factors None for blind reuse. Neither is written to.
        cos, sin: [1 or L, T, R].
        """
        for layers, kv, patch in self._arriving(canonical, factors):
            turns = (cos, sin) if len(cos) == 1 else (cos[layers], sin[layers])
            buffers = self.masters[layers], self.keys[layers], self.values[layers]
            self._kernels.rebuild(*buffers, slots, kv, patch, *turns, self.shape.pairs)

    def _arriving(self, canonical: Sequence[LayerKV], factors: Sequence[Factors] | None) -> Iterable[Group]:
        """The layers of a chunk where the pool is: all at once where they are there already."""
        if self.shape.device.type == "cuda" and not canonical[0].keys.is_cuda:
            if self._upload is None:
                self._upload = Upload(self.shape.device)
            return self._upload.groups(canonical, factors)
        kv = [on_device(layer, self.shape.device) for layer in canonical]
        patch = None if factors is None else [on_device(layer, self.shape.device) for layer in factors]
        return [Group(slice(0, len(kv)), kv, patch)]

    def read(self, slots: Slots) -> tuple[LayerKV, ...]:
        """A copy of a span's KV, per layer."""
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
    """Block of each token [T]: the order of the first of the neighbours that it sees both ways; CAUSAL for none."""
    marked = both_ways.to(orders.device)
    first = marked.clone()
    first[1:] &= ~marked[:-1]
    latest = torch.where(first, orders, CAUSAL).cummax(0).values
    return torch.where(marked, latest, CAUSAL)


def _in_order(free: Sequence[range]) -> Slots:
    return Slots(tuple(sorted(free, key=lambda part: part.start)))


def _with_slack(num_tokens: int) -> int:
    """A little more than asked, so that a slowly growing window is not copied at every turn."""
    return num_tokens + num_tokens // 64
