"""The pool against a dict that remembers what every span should hold."""

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import FREE, Heads, KVPool, KVShape

SHAPE = KVShape(num_layers=2, keys=Heads(1, 4), values=Heads(1, 4), dtype=torch.float32, device=torch.device("cpu"))


def fill(pool: KVPool, slots: Slots, mark: float) -> None:
    """Write 1000 * mark, 1000 * mark + 1, ... into a span, shifted by a fraction of its own in each buffer."""
    for offset, slot in enumerate(slot for part in slots.ranges for slot in part):
        for shift, buffer in enumerate((pool.masters, pool.keys, pool.values)):
            buffer[:, :, slot] = 1000 * mark + offset + 0.25 * shift


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = KVPool(SHAPE)
        self.spans: dict[int, Slots] = {}
        self.sizes: dict[int, int] = {}
        self.num_made = 0

    @rule(size=st.integers(0, 20))
    def allocate(self, size: int) -> None:
        mark = self.num_made = self.num_made + 1
        self.spans[mark] = self.pool.allocate(size)
        self.sizes[mark] = size
        self.pool.place(self.spans[mark], 100 * mark)
        fill(self.pool, self.spans[mark], mark)

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        mark = data.draw(st.sampled_from(sorted(self.spans)))
        self.pool.free(self.spans.pop(mark))

    @rule(size=st.integers(0, 60), more=st.integers(0, 60))
    def reserve(self, size: int, more: int) -> None:
        before = self.pool.capacity
        self.pool.reserve(size, more)
        capacity = self.pool.capacity
        assert self.pool.num_free >= (size if capacity == before else size + more)
        self.pool.free(self.pool.allocate(size))
        assert self.pool.capacity == capacity

    @precondition(lambda self: self.spans)
    @rule()
    def compact(self) -> None:
        marks = sorted(self.spans)
        slots = self.pool.compact([self.spans[mark] for mark in marks])
        self.spans = dict(zip(marks, slots, strict=True))
        needed = sum(self.sizes[mark] for mark in marks)
        assert self.pool.capacity <= 1.15 * needed
        assert self.pool.fits

    @precondition(lambda self: self.spans)
    @rule(data=st.data(), size=st.integers(0, 60))
    def go_over_to_another_pool(self, data: st.DataObject, size: int) -> None:
        """A pool with gaps takes some of the spans; the others are left."""
        other = KVPool(SHAPE)
        gap, between = other.allocate(size), other.allocate(1)
        other.free(gap)
        marks = data.draw(st.lists(st.sampled_from(sorted(self.spans)), unique=True))
        taken = other.take(self.pool, [self.spans[mark] for mark in marks])
        self.every_span_holds_what_was_written()
        other.free(between)
        self.pool, self.spans = other, dict(zip(marks, taken, strict=True))

    @invariant()
    def every_span_holds_what_was_written(self) -> None:
        self.pool.check_integrity(list(self.spans.values()))
        size = 2 * 1 * 4 * 4
        assert self.pool.num_bytes == 3 * size * self.pool.capacity
        visible = set()
        for mark, slots in self.spans.items():
            indices = [slot for part in slots.ranges for slot in part]
            assert len(indices) == self.sizes[mark]
            tokens = 1000.0 * mark + torch.arange(len(indices))
            assert bool((self.pool.masters[:, :, indices] == tokens[:, None]).all())
            assert bool((self.pool.keys[:, :, indices] == tokens[:, None] + 0.25).all())
            assert bool((self.pool.values[:, :, indices] == tokens[:, None] + 0.5).all())
            assert self.pool.order[indices].tolist() == list(range(100 * mark, 100 * mark + len(indices)))
            visible |= set(indices)
        hidden = [slot for slot in range(self.pool.capacity) if slot not in visible]
        assert self.pool.order[hidden].tolist() == [FREE] * len(hidden)

    @invariant()
    def free_slots_hold_finite_numbers(self) -> None:
        assert bool(self.pool.values.isfinite().all())
        assert bool(self.pool.keys.isfinite().all())


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPoolAgainstDict = PoolMachine.TestCase


def test_one_range_where_one_is_long_enough() -> None:
    pool = KVPool(SHAPE)
    first, _second, third = (pool.allocate(10) for _ in range(3))
    pool.free(first)
    pool.free(third)
    assert len(pool.allocate(10).ranges) == 1
    assert len(pool.allocate(4).ranges) == 1


def test_read_copies() -> None:
    pool = KVPool(SHAPE)
    slots = pool.allocate(5)
    fill(pool, slots, 1)
    copy = pool.read(slots)
    fill(pool, slots, 2)
    assert copy[1].keys[0, :, 0].tolist() == [1000.0, 1001.0, 1002.0, 1003.0, 1004.0]


def test_a_chunk_is_taken_to_the_device_of_the_pool() -> None:
    """The kernels get tensors on the pool's device, also where it has neither streams nor pinned memory."""
    pool = KVPool(SHAPE._replace(device=torch.device("meta")))
    got: list[torch.Tensor] = []

    def rebuild(*arguments: Any) -> None:
        _masters, _keys, _values, _slots, base, factors, *_ = arguments
        got.extend(tensor for layer in (*base, *factors) for tensor in tensors_of(layer))

    pool._kernels = pool._kernels._replace(rebuild=rebuild)
    kv = [LayerKV(torch.ones(1, 3, 4), torch.ones(1, 3, 4))] * 2
    factors = [Factors(torch.ones(3, 1), torch.ones(1, 8))] * 2
    turns = torch.ones(1, 3, 4, device="meta")
    pool.load(pool.allocate(3), kv, factors, turns, turns)
    assert [tensor.device.type for tensor in got] == ["meta"] * 8
