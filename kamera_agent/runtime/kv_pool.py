"""The pool of one window: its slots, and the banks that hold what the model's layers keep of the tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from kamera_agent.runtime.bank import Bank, KVShape, Row, Tables
from kamera_agent.runtime.fold import Fold
from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.recurrence import Recurrence
from kamera_agent.runtime.sliding_bank import SlidingBank

# Above every place in a window, so that no query sees a free slot.
FREE = torch.iinfo(torch.int64).max
# Not a place in a window, so that no block has this number.
CAUSAL = -1
CPU = torch.device("cpu")
# Free slots per used one: in a pool that grows within a turn, and in one that is made to fit.
GROWTH, SPARE = 1 / 16, 1 / 8
# A pool fits while it has no fewer than a usual turn takes, and no more than it may keep.
LEAST, MOST = 1 / 20, 0.15


class KVPool:
    """Slots for the tokens of one window.

    banks    what the layers keep of the tokens: those of a bank keep the same
    order    [S] int64       the token's place in the window; FREE in a free slot; on the CPU, as is
    block    [S] int64       the place of the first token of its block; CAUSAL for a token outside a block

    Attention does not depend on the slot of a key, so moving a span rewrites its turned keys and nothing else. The
    tokens of a block see each other both ways.
    rows: by the number of a layer, where it is among the banks; a layer that keeps nothing is not there.
    fold: what recurrent layers keep of the tokens; None where there are no such layers.
    """

    def __init__(self, shapes: Sequence[KVShape], recurrence: Recurrence | None = None) -> None:
        self.banks = [Bank(shape) if shape.reach is None else SlidingBank(shape) for shape in shapes]
        self._sliding = [bank for bank in self.banks if isinstance(bank, SlidingBank)]
        self.fold = Fold(recurrence) if recurrence else None
        rows = {layer: Row(bank, row) for bank in self.banks for row, layer in enumerate(bank.shape.layers)}
        self.rows = dict(sorted(rows.items()))
        self.order: torch.Tensor
        self.block: torch.Tensor
        self._free: Slots
        self._resize(0, ())

    def _resize(self, capacity: int, spans: Sequence[Slots]) -> None:
        """Copy the spans into buffers of another size.

        slots   [0, n0)      [n0, n0 + n1)  ...  [used, capacity)
                first span   second span    ...  free
        """
        kept = [part for span in spans for _, part in span.parts()]
        used = sum(span.num_tokens for span in spans)
        for bank in self.banks:
            bank.resize(kept, capacity)
        for name, nothing in (("order", FREE), ("block", CAUSAL)):
            taken = [getattr(self, name)[part] for part in kept]
            setattr(self, name, torch.cat([*taken, torch.full((capacity - used,), nothing)]))
        self._free = Slots((range(used, capacity),))

    def empty(self) -> KVPool:
        """An empty pool for the same model."""
        return KVPool([bank.shape for bank in self.banks], self.fold.recurrence if self.fold else None)

    @property
    def device(self) -> torch.device:
        """Where the banks are."""
        return self.banks[0].shape.device

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
        """Bytes of the banks, free slots included, and of the fold. May be read from any thread."""
        return sum(bank.num_bytes for bank in self.banks) + (self.fold.num_bytes if self.fold else 0)

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
        for bank in self._sliding:
            bank.free(slots)
        if self.fold:
            self.fold.free(slots)
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
        moved = [Slots((range(start, end),)) for start, end in pairwise(ends)]
        if self.fold:
            self.fold.rename(zip(spans, moved, strict=True))
        return moved

    def take(self, other: KVPool, spans: Sequence[Slots]) -> list[Slots]:
        """Copy spans of another pool, with their places; returns their slots here, in the same order."""
        self.reserve(sum(span.num_tokens for span in spans))
        taken = []
        for span in spans:
            slots = self.allocate(span.num_tokens)
            for bank, theirs in zip(self.banks, other.banks, strict=True):
                bank.take(slots, theirs, span)
            here, there = slots.index(CPU), span.index(CPU)
            self.order[here], self.block[here] = other.order[there], other.block[there]
            taken.append(slots)
        if self.fold and other.fold:
            self.fold.take(other.fold, zip(spans, taken, strict=True))
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

    def relocate(self, slots: Slots, tables: Sequence[Tables]) -> None:
        """Turn the keys of a span to new positions. tables: per bank, at these.

        Sliding layers do that, and what load() asks for, when settle() says that a query sees the span.
        """
        for bank, turns in zip(self.banks, tables, strict=True):
            bank.relocate(slots, turns)

    def load(
        self,
        slots: Slots,
        base: Sequence[LayerKV],
        factors: Sequence[Factors] | None,
        tables: Sequence[Tables],
    ) -> None:
        """Rebuild a chunk in its slots: its base plus a patch, then one rotation to its positions.

        base, factors: per layer that keeps anything, in the order of the model; otherwise as for Bank.load().
        tables: per bank, at its positions.
        """
        numbers = {layer: number for number, layer in enumerate(self.rows)}
        for bank, turns in zip(self.banks, tables, strict=True):
            own = [numbers[layer] for layer in bank.shape.layers]
            patch = None if factors is None else [factors[number] for number in own]
            bank.load(slots, [base[number] for number in own], patch, turns)

    def settle(self, slots: Slots) -> None:
        """Do what sliding layers put off, as far as queries in these slots see it. All places must be entered."""
        for bank in self._sliding:
            if bank.due.any():
                bank.settle(self.order, int(self.order[slots.index(CPU)].min()))

    def keep(self, slots: Slots) -> Kept:
        """What the layers keep of a span. The caller must not write to it; the K and V are copies."""
        return Kept(self.read(slots), self.fold.read(slots) if self.fold else None)

    def read(self, slots: Slots) -> tuple[LayerKV, ...]:
        """A copy of a span's KV, per layer that keeps any, in the order of the model. The caller owns it."""
        found = dict[int, LayerKV]()
        for bank in self.banks:
            found |= zip(bank.shape.layers, bank.read(slots), strict=True)
        return tuple(found[layer] for layer in self.rows)

    def join(self, slots: Slots) -> None:
        """Say that the tokens of a span, which were computed one by one, stay together from now on."""
        if self.fold:
            self.fold.join(slots)

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
