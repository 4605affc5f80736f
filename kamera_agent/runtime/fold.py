"""The recurrent side of a pool: what recurrent layers keep of each span, and the states that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.recurrence import EVERY, Recurrence, State, Trace, at, num_bytes

# States are kept at least so many tokens apart, the last one besides: each takes as much memory as a map.
SPACING = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Tokens in a row, and what recurrent layers keep of them. Never written to, so that pools may share it."""

    num_tokens: int
    trace: Trace


class Folded(NamedTuple):
    """The state after the first num_passages passages of a window, which have num_tokens tokens."""

    num_passages: int
    num_tokens: int
    state: State


class Known(NamedTuple):
    """Passages in the order in which they were folded, and states between them."""

    passages: Sequence[Passage] = ()
    states: Sequence[Folded] = ()


class Fold:
    """The passages of one window, by the slot of their first token, and the states after some of them.

    A passage is where its first token is in the order of the pool. So a span that moves, is hidden or is freed takes
    its passages along. A state is of use as long as the window begins with the passages that it comes after: an edit or
    an interrupted turn needs not say which states it made useless.
    """

    def __init__(self, recurrence: Recurrence) -> None:
        self.recurrence = recurrence
        self.passages: Mapping[int, Passage] = {}
        self._known = Known()

    @property
    def num_bytes(self) -> int:
        """Bytes of the passages and the states. May be read from any thread."""
        stacks = [*(passage.trace for passage in self.passages.values()), *(one.state for one in self._known.states)]
        return sum(map(num_bytes, stacks))

    def between(self, order: torch.Tensor, start: int, stop: int) -> list[Passage]:
        """The passages from one place of the window to another, in order. order [S]: as of the pool."""
        slots = list(self.passages)
        places = zip(order[slots].tolist(), slots, strict=True)
        found = [self.passages[slot] for place, slot in sorted(places) if start <= place < stop]
        num_tokens = sum(passage.num_tokens for passage in found)
        assert num_tokens == stop - start, f"{stop - start} tokens from place {start} on, {num_tokens} in passages"
        return found

    def state_after(self, passages: Sequence[Passage]) -> State:
        """The state after the first passages of the window."""
        states = self._usable(passages)
        first = states[-1] if states else Folded(0, 0, self.recurrence.start)
        return self.advance(first.state, passages[first.num_passages :])

    def advance(self, state: State, passages: Iterable[Passage], layers: slice = EVERY) -> State:
        """The state of some of the layers after more passages."""
        for passage in passages:
            state = self.recurrence.fold(state, at(passage.trace, layers), layers)
        return state

    def enter(self, new: Mapping[int, Passage], passages: Sequence[Passage], state: State) -> None:
        """Add passages, by slot, and the state after the first passages of the window."""
        states = list(self._usable(passages))
        if len(states) > 1 and states[-1].num_tokens < states[-2].num_tokens + SPACING:
            states.pop()
        num_tokens = sum(passage.num_tokens for passage in passages)
        self.passages = {**self.passages, **new}
        self._known = Known(passages, [*states, Folded(len(passages), num_tokens, state)])

    def _usable(self, passages: Sequence[Passage]) -> Sequence[Folded]:
        """The states that come after passages with which these begin."""
        pairs = enumerate(zip(passages, self._known.passages, strict=False))
        shorter = min(len(passages), len(self._known.passages))
        num_same = next((number for number, (ours, theirs) in pairs if ours is not theirs), shorter)
        return [folded for folded in self._known.states if folded.num_passages <= num_same]

    def load(self, slots: Slots, trace: Trace) -> None:
        """Enter what is kept of a span."""
        self.passages = {**self.passages, _first(slots): Passage(slots.num_tokens, trace)}

    def read(self, slots: Slots) -> Trace:
        """What is kept of a span. The caller must not write to it."""
        passage = self.passages[_first(slots)]
        assert passage.num_tokens == slots.num_tokens
        return passage.trace

    def free(self, slots: Slots) -> None:
        """Forget the passages of a span."""
        gone = [slot for slot in self.passages if any(slot in part for part in slots.ranges)]
        if gone:
            self.passages = {slot: passage for slot, passage in self.passages.items() if slot not in gone}

    def take(self, other: Fold, taken: Iterable[tuple[Slots, Slots]]) -> None:
        """Share passages of another fold. taken: spans by their slots there and here."""
        self.passages = {**self.passages, **other._renamed(taken)}
        if not self._known.passages:
            self._known = other._known

    def rename(self, moved: Iterable[tuple[Slots, Slots]]) -> None:
        """Enter the new slots of spans, which are all that there are. moved: the old and the new slots."""
        self.passages = self._renamed(moved)

    def _renamed(self, moved: Iterable[tuple[Slots, Slots]]) -> dict[int, Passage]:
        slots = {old: new for pair in moved for old, new in zip(*map(Slots.each, pair), strict=True)}
        return {slots[slot]: passage for slot, passage in self.passages.items() if slot in slots}

    def join(self, slots: Slots) -> None:
        """Make one passage of those of a span, which were computed in a row."""
        first = _first(slots)
        parts = [self.passages[slot] for slot in slots.each() if slot in self.passages]
        trace = self.recurrence.join([part.trace for part in parts])
        whole = Passage(slots.num_tokens, trace)
        self.free(slots)
        self.passages = {**self.passages, first: whole}
        passages, states = self._known
        if parts[0] not in passages:
            return
        start = passages.index(parts[0])
        end = start + len(parts)
        before = [folded for folded in states if folded.num_passages <= start]
        after = [folded._replace(num_passages=start + 1) for folded in states if folded.num_passages == end]
        self._known = Known([*passages[:start], whole], [*before, *after])


def _first(slots: Slots) -> int:
    return slots.ranges[0].start
