"""The bank of layers with a sliding window, which works on a span only when a query sees it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from kamera_agent.runtime.bank import Bank, KVShape, Tables
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.kernels.slots import Slots, index_of

CPU = torch.device("cpu")


class Waiting(NamedTuple):
    """A chunk that is not rebuilt yet. base, factors: as of Bank.load()."""

    slots: Slots
    base: Sequence[LayerKV]
    factors: Sequence[Factors] | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors."""
        layers: Sequence[LayerKV | Factors] = [*self.base, *(self.factors or ())]
        return sum(tensor.nbytes for layer in layers for tensor in tensors_of(layer))


class SlidingBank(Bank):
    """A bank that puts off what move and load ask for until settle() says that a query sees the slots.

    In the windows of an agent most spans are further back than a sliding layer sees, and many are dropped there.

    cos, sin [1 or L, S, R]  the tables at the position that the token has now
    due      [S] bool        whether the turned key is not at that position; on the CPU
    """

    def __init__(self, shape: KVShape) -> None:
        self.due = torch.zeros(0, dtype=torch.bool)
        self._tables: Tables | None = None
        # By their first slot.
        self._waiting: Mapping[int, Waiting] = {}
        super().__init__(shape)

    @property
    def num_bytes(self) -> int:
        tables = self._tables or ()
        waiting = self._waiting.values()
        return super().num_bytes + sum(table.nbytes for table in tables) + sum(one.num_bytes for one in waiting)

    def resize(self, kept: Sequence[slice], capacity: int) -> None:
        old = torch.cat([torch.arange(part.start, part.stop) for part in kept]) if kept else torch.arange(0)
        due = torch.zeros(capacity, dtype=torch.bool)
        due[: len(old)] = self.due[old]
        tables = [_spread(table[:, old.to(table.device)], capacity) for table in self._tables or ()]
        renamed = dict(zip(old.tolist(), range(len(old)), strict=True))
        waiting = _renamed(self._waiting, renamed)
        super().resize(kept, capacity)
        self.due, self._waiting = due, waiting
        self._tables = (tables[0], tables[1]) if tables else None

    def free(self, slots: Slots) -> None:
        """Forget what is put off for slots."""
        gone = [first for first, one in self._waiting.items() if _meet(one.slots, slots)]
        # First: after an interrupt between the two, masters that are there are turned once more. The other way round, a
        # chunk would be rebuilt over what was computed in its place.
        self._waiting = {first: one for first, one in self._waiting.items() if first not in gone}
        self.due[slots.index(CPU)] = False

    def take(self, slots: Slots, other: Bank, theirs: Slots) -> None:
        assert isinstance(other, SlidingBank)
        super().take(slots, other, theirs)
        if other._tables:
            there = theirs.index(self.shape.device)
            self._enter(slots, (other._tables[0][:, there], other._tables[1][:, there]))
        self.due[slots.index(CPU)] = other.due[theirs.index(CPU)]
        renamed = dict(zip(theirs.each(), slots.each(), strict=True))
        self._waiting = {**self._waiting, **_renamed(other._waiting, renamed)}

    def relocate(self, slots: Slots, tables: Tables) -> None:
        self._enter(slots, tables)
        self.due[slots.index(CPU)] = True

    def load(self, slots: Slots, base: Sequence[LayerKV], factors: Sequence[Factors] | None, tables: Tables) -> None:
        self.relocate(slots, tables)
        self._waiting = {**self._waiting, slots.ranges[0].start: Waiting(slots, base, factors)}

    def read(self, slots: Slots) -> list[LayerKV]:
        for one in [one for one in self._waiting.values() if _meet(one.slots, slots)]:
            self._rebuild(one)
        return super().read(slots)

    def settle(self, order: torch.Tensor, first: int) -> None:
        """Do what was put off for the slots that queries from place `first` on see. order [S]: as of the pool."""
        assert self.shape.reach
        seen = order > first - self.shape.reach
        due = self.due & seen
        for one in [one for one in self._waiting.values() if due[one.slots.index(CPU)].any()]:
            self._rebuild(one)
        rows = (self.due & seen).nonzero()[:, 0]
        if len(rows):
            super().relocate(_slots_of(rows), self._at(index_of(rows, self.shape.device)))
            self.due[rows] = False

    def _rebuild(self, one: Waiting) -> None:
        super().load(one.slots, one.base, one.factors, self._at(one.slots.index(self.shape.device)))
        self.free(one.slots)

    def _enter(self, slots: Slots, tables: Tables) -> None:
        if self._tables is None:
            cos, sin = (_spread(table[:, :0], len(self.due)) for table in tables)
            self._tables = cos, sin
        index = slots.index(self.shape.device)
        for ours, new in zip(self._tables, tables, strict=True):
            ours[:, index] = new

    def _at(self, index: slice | torch.Tensor) -> Tables:
        assert self._tables
        cos, sin = self._tables
        return cos[:, index], sin[:, index]


def _spread(table: torch.Tensor, capacity: int) -> torch.Tensor:
    """A table [1 or L, n, R] with room for so many slots."""
    wide = table.new_empty(len(table), capacity, table.shape[-1])
    wide[:, : table.shape[1]] = table
    return wide


def _slots_of(rows: torch.Tensor) -> Slots:
    """Slots from numbers in ascending order."""
    first = [0, *((rows.diff() != 1).nonzero()[:, 0] + 1).tolist(), len(rows)]
    return Slots(tuple(range(int(rows[a]), int(rows[b - 1]) + 1) for a, b in pairwise(first)))


def _meet(one: Slots, other: Slots) -> bool:
    """Whether two spans have a slot in common."""
    return any(max(a.start, b.start) < min(a.stop, b.stop) for a in one.ranges for b in other.ranges)


def _renamed(waiting: Mapping[int, Waiting], slots: Mapping[int, int]) -> dict[int, Waiting]:
    """Those in some slots, in their new slots."""
    moved = {}
    for first, one in waiting.items():
        if first in slots:
            own = Slots(tuple(range(slots[slot], slots[slot] + 1) for slot in one.slots.each()))
            moved[slots[first]] = one._replace(slots=own)
    return moved
