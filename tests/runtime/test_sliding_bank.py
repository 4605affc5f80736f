"""A bank that puts work off against one that does it at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from kamera_agent.runtime.bank import Heads, KVShape, Tables
from kamera_agent.runtime.families.decoder import FULL, SLIDING
from kamera_agent.runtime.kernels import reference
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.sliding_bank import SlidingBank

REACH, DIM, LAYERS = 12, 4, 2
EAGER = KVShape((0, 1), FULL, Heads(1, DIM), Heads(2, DIM), torch.float32, torch.device("cpu"))
LAZY = EAGER._replace(kind=SLIDING, reach=REACH)


def tables(position: int, num_tokens: int) -> list[Tables]:
    angles = torch.arange(position, position + num_tokens)[None, :, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    return [(angles.cos(), angles.sin())]


def chunk(seed: int, num_tokens: int) -> tuple[list[LayerKV], list[Factors]]:
    seeded = torch.Generator().manual_seed(seed)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=seeded)

    base = [LayerKV(random(1, num_tokens, DIM), random(2, num_tokens, DIM)) for _ in range(LAYERS)]
    return base, [Factors(random(num_tokens, 1), random(1, 3 * DIM)) for _ in range(LAYERS)]


def same(one: KVPool, other: KVPool, index: torch.Tensor) -> bool:
    [lazy], [eager] = one.banks, other.banks
    names = ("masters", "keys", "values")
    return all(torch.equal(getattr(lazy, name)[:, :, index], getattr(eager, name)[:, :, index]) for name in names)


class Machine(RuleBasedStateMachine):
    """The same operations on a lazy pool and an eager one, whose slots are therefore the same."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = [KVPool([LAZY]), KVPool([EAGER])]
        self.spans: list[Slots] = []
        self.place = 0

    def each(self, act: Callable[[KVPool], object]) -> None:
        for pool in self.pools:
            act(pool)

    def enter(self, slots: Slots) -> None:
        self.each(lambda pool: pool.place(slots, self.place))
        self.place += slots.num_tokens

    @rule(size=st.integers(1, 9), position=st.integers(0, 500), with_patch=st.booleans(), seed=st.integers(0, 9))
    def load(self, size: int, position: int, with_patch: bool, seed: int) -> None:
        base, factors = chunk(seed, size)
        slots, again = [pool.allocate(size) for pool in self.pools]
        assert slots == again
        self.each(lambda pool: pool.load(slots, base, factors if with_patch else None, tables(position, size)))
        self.enter(slots)
        self.spans.append(slots)

    @precondition(lambda self: self.spans)
    @rule(data=st.data(), position=st.integers(0, 500))
    def relocate(self, data: st.DataObject, position: int) -> None:
        spans = data.draw(st.lists(st.sampled_from(self.spans), min_size=1, max_size=3, unique=True))
        slots = Slots.of(spans)
        self.each(lambda pool: pool.relocate(slots, tables(position, slots.num_tokens)))

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def come_last(self, data: st.DataObject) -> None:
        self.enter(data.draw(st.sampled_from(self.spans)))

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        slots = data.draw(st.sampled_from(self.spans))
        self.spans.remove(slots)
        self.each(lambda pool: pool.free(slots))

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        self.spans = data.draw(st.permutations(self.spans))
        new = [pool.compact(self.spans) for pool in self.pools]
        assert new[0] == new[1]
        self.spans = new[0]

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def go_on_in_a_copy(self, data: st.DataObject) -> None:
        spans = data.draw(st.lists(st.sampled_from(self.spans), min_size=1, unique=True))
        copies = [pool.empty() for pool in self.pools]
        taken = [copy.take(pool, spans) for copy, pool in zip(copies, self.pools, strict=True)]
        assert taken[0] == taken[1]
        self.pools, self.spans = copies, taken[0]

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        slots = data.draw(st.sampled_from(self.spans))
        for lazy, eager in zip(*(pool.read(slots) for pool in self.pools), strict=True):
            assert torch.equal(lazy.keys, eager.keys)
            assert torch.equal(lazy.values, eager.values)

    @precondition(lambda self: self.spans)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        lazy, eager = self.pools
        query = data.draw(st.sampled_from(self.spans))
        lazy.settle(query)
        first = int(lazy.order[[slot for part in query.ranges for slot in part]].min())
        used = torch.zeros(lazy.capacity, dtype=torch.bool)
        for part in (part for span in self.spans for part in span.ranges):
            used[part.start : part.stop] = True
        assert same(lazy, eager, (used & (lazy.order > first - REACH)).nonzero()[:, 0])


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_nothing_is_done_for_spans_that_no_query_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    turned, rebuilt = list[int](), list[int]()
    pool = KVPool([LAZY])
    [bank] = pool.banks
    relocate, rebuild = reference.relocate, reference.rebuild
    kernels = bank._kernels._replace(
        relocate=lambda m, k, slots, *rest: (turned.append(slots.num_tokens), relocate(m, k, slots, *rest)),
        rebuild=lambda m, k, v, slots, *rest: (rebuilt.append(slots.num_tokens), rebuild(m, k, v, slots, *rest)),
    )
    monkeypatch.setattr(bank, "_kernels", kernels)
    far, near, last = (pool.allocate(size) for size in (9, 8, 6))
    for order, slots in zip((0, 9, 17), (far, near, last), strict=True):
        base, factors = chunk(order, slots.num_tokens)
        pool.load(slots, base, factors, tables(order, slots.num_tokens))
        pool.place(slots, order)
    # The first query, at place 17, sees those from 6 on: some of the first chunk.
    pool.settle(last)
    assert sorted(rebuilt) == [6, 8, 9]
    assert turned == []
    pool.relocate(far, tables(100, 9))
    pool.settle(last)
    assert turned == [3]
    # Seven places later, no query sees any of it.
    pool.place(last, 24)
    pool.relocate(far, tables(200, 9))
    pool.settle(last)
    assert turned == [3]
    assert isinstance(bank, SlidingBank)
    assert int(bank.due.sum()) == 9
