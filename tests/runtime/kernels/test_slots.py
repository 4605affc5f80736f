"""Slots against the plain list of slot numbers."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from kamera_agent.runtime.kernels.slots import Slots

CPU = torch.device("cpu")
RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)).map(lambda pair: range(pair[0], sum(pair))))


def numbers(slots: Slots) -> list[int]:
    return [slot for part in slots.ranges for slot in part]


@given(RANGES, st.integers(0, 40))
def test_slots_are_the_numbers_of_their_ranges(ranges: list[range], cut: int) -> None:
    expected = [slot for part in ranges for slot in part]
    slots, pool = Slots(tuple(ranges)), torch.arange(40)
    assert numbers(slots) == expected
    assert slots.num_tokens == len(expected)
    assert pool[slots.index(CPU)].tolist() == expected
    start, index = slots.start_and_index(CPU)
    assert [start + token if index is None else int(index[token]) for token in range(len(expected))] == expected
    parts = list(slots.parts())
    assert [token for tokens, _ in parts for token in range(tokens.start, tokens.stop)] == list(range(len(expected)))
    assert [slot for _, part in parts for slot in pool[part].tolist()] == expected
    first, others = slots.split(cut)
    assert (numbers(first), numbers(others)) == (expected[:cut], expected[cut:])


@given(RANGES)
def test_what_can_be_one_range_is_one_range(ranges: list[range]) -> None:
    slots = Slots(tuple(ranges))
    numbers_of = numbers(slots)
    breaks = sum(after != before + 1 for before, after in pairwise(numbers_of))
    assert len(slots.ranges) == breaks + bool(numbers_of)
    assert isinstance(slots.index(CPU), slice) == (breaks == 0)
