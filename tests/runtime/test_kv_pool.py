"""The pool against a dict that remembers what every span should hold."""

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from models import max_error

from kamera_agent.runtime.bank import Heads, KVShape
from kamera_agent.runtime.families.decoder import FULL, SLIDING
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import FREE, KVPool
from kamera_agent.runtime.patch import matrix

# A layer that keeps nothing, and two banks, whose layers alternate.
FIRST = KVShape((0, 3), FULL, Heads(1, 4), Heads(1, 4), torch.float32, torch.device("cpu"))
SECOND = FIRST._replace(layers=(2,), kind=SLIDING, keys=Heads(2, 6), values=Heads(3, 2))
SHAPES = [FIRST, SECOND]
TOKEN_BYTES = 4 * (2 * 3 * 4 + 2 * 2 * 6 + 3 * 2)


def fill(pool: KVPool, slots: Slots, mark: float) -> None:
    """Write 1000 * mark, 1000 * mark + 1, ... into a span, shifted by a fraction of its own in each buffer."""
    for offset, slot in enumerate(slot for part in slots.ranges for slot in part):
        for layer, row in pool.rows.items():
            for shift, buffer in enumerate((row.masters, row.keys, row.values)):
                buffer[:, slot] = written(mark, offset, layer, shift)


def written(mark: float, offset: torch.Tensor | int, layer: int, shift: int) -> Any:
    return 1000 * mark + offset + 0.25 * shift + layer / 64


class PoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pool = KVPool(SHAPES)
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
        other = KVPool(SHAPES)
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
        assert self.pool.num_bytes == TOKEN_BYTES * self.pool.capacity
        visible = set()
        for mark, slots in self.spans.items():
            indices = [slot for part in slots.ranges for slot in part]
            assert len(indices) == self.sizes[mark]
            for layer, row in self.pool.rows.items():
                for shift, buffer in enumerate((row.masters, row.keys, row.values)):
                    expected = written(mark, torch.arange(len(indices)), layer, shift)
                    assert bool((buffer[:, indices] == expected[:, None]).all())
            assert self.pool.order[indices].tolist() == list(range(100 * mark, 100 * mark + len(indices)))
            visible |= set(indices)
        hidden = [slot for slot in range(self.pool.capacity) if slot not in visible]
        assert self.pool.order[hidden].tolist() == [FREE] * len(hidden)

    @invariant()
    def free_slots_hold_finite_numbers(self) -> None:
        for row in self.pool.rows.values():
            assert bool(row.values.isfinite().all())
            assert bool(row.keys.isfinite().all())


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestPoolAgainstDict = PoolMachine.TestCase


def test_one_range_where_one_is_long_enough() -> None:
    pool = KVPool(SHAPES)
    first, _second, third = (pool.allocate(10) for _ in range(3))
    pool.free(first)
    pool.free(third)
    assert len(pool.allocate(10).ranges) == 1
    assert len(pool.allocate(4).ranges) == 1


def test_read_copies() -> None:
    pool = KVPool(SHAPES)
    slots = pool.allocate(5)
    fill(pool, slots, 1)
    copy = pool.read(slots)
    fill(pool, slots, 2)
    assert [len(layer.keys) for layer in copy] == [1, 2, 1]
    for layer, kv in zip((0, 2, 3), copy, strict=True):
        assert kv.keys[0, :, 0].tolist() == [written(1, offset, layer, 0) for offset in range(5)]
        assert kv.values[0, :, 0].tolist() == [written(1, offset, layer, 2) for offset in range(5)]


def test_each_layer_is_loaded_into_its_bank(seeded: torch.Generator) -> None:
    pool = KVPool(SHAPES)
    slots = pool.allocate(5)
    fill(pool, slots, 1)
    shapes = [FIRST, SECOND, FIRST]
    kv, factors = [], []
    for shape in shapes:
        states = (torch.randn(heads.num, 5, heads.dim, generator=seeded) for heads in (shape.keys, shape.values))
        kv.append(LayerKV(*states))
        width = shape.keys.num * shape.keys.dim + shape.values.num * shape.values.dim
        factors.append(Factors(torch.randn(5, 2, generator=seeded), torch.randn(2, width, generator=seeded)))
    still = [(torch.ones(1, 5, shape.keys.dim), torch.zeros(1, 5, shape.keys.dim)) for shape in SHAPES]
    pool.load(slots, kv, factors, still)
    for base, patch, loaded in zip(kv, factors, pool.read(slots), strict=True):
        assert max_error(matrix(base) + patch.u @ patch.v, matrix(loaded)) <= 1e-5


def test_a_chunk_is_taken_to_the_device_of_the_pool() -> None:
    """The kernels get tensors on the pool's device, also where it has neither streams nor pinned memory."""
    pool = KVPool([FIRST._replace(device=torch.device("meta"))])
    [bank] = pool.banks
    got: list[torch.Tensor] = []

    def rebuild(*arguments: Any) -> None:
        _masters, _keys, _values, _slots, base, factors, *_ = arguments
        got.extend(tensor for layer in (*base, *factors) for tensor in tensors_of(layer))

    bank._kernels = bank._kernels._replace(rebuild=rebuild)
    kv = [LayerKV(torch.ones(1, 3, 4), torch.ones(1, 3, 4))] * 2
    factors = [Factors(torch.ones(3, 1), torch.ones(1, 8))] * 2
    turns = torch.ones(1, 3, 4, device="meta")
    pool.load(pool.allocate(3), kv, factors, [(turns, turns)])
    assert [tensor.device.type for tensor in got] == ["meta"] * 8
