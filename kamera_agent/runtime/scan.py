"""Recurrent layers in one forward pass: stretch by stretch, each after the state that the window has there.

A pass computes new spans anywhere in a window. Attention finds all that a query sees by its place; a recurrent layer
must go through the window in order:

    window      old old | new new new | old old old | new
    stretches             first                       second
    state       folded    computed      folded        computed

The layer's own module computes a stretch, after the state that its cache holds. In an old part, the layer folds what
it kept of the spans there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import nn

from kamera_agent.runtime.fold import Fold, Passage
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.recurrence import Trace, at, stacked
from kamera_agent.runtime.slot_cache import Memory


class Stretch(NamedTuple):
    """New spans in a row. rows: of the pass. lengths: of the spans. between: the passages since the stretch before."""

    rows: slice
    lengths: Sequence[int]
    between: Sequence[Passage]


class Scan:
    """The recurrent layers in one forward pass.

    spans: the slots of those that the pass computes, in the order of the window. memories: of each recurrent layer.
    """

    def __init__(self, fold: Fold, order: torch.Tensor, spans: Sequence[Slots]) -> None:
        self._fold, self._spans = fold, spans
        first_slots = [span.ranges[0].start for span in spans]
        starts = order[first_slots].tolist()
        assert starts == sorted(starts), "spans are computed in the order of the window"
        ends = [start + span.num_tokens for start, span in zip(starts, spans, strict=True)]
        breaks = [number for number in range(1, len(spans)) if starts[number] > ends[number - 1]]
        self._stretches: list[Stretch] = []
        num_rows = place = 0
        for first, last in pairwise([0, *breaks, len(spans)]):
            lengths = [span.num_tokens for span in spans[first:last]]
            rows = slice(num_rows, num_rows + sum(lengths))
            self._stretches.append(Stretch(rows, lengths, fold.between(order, place, starts[first])))
            num_rows, place = rows.stop, ends[last - 1]
        state = fold.state_after(self._stretches[0].between)
        self.memories = [Memory(at(state, slice(layer, layer + 1))) for layer in range(len(state.tail))]
        self._traces: list[list[Trace]] = [[] for _ in spans]
        self._hidden: torch.Tensor
        self._given: dict[str, Any]

    def before(self, number: int, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a layer for the first stretch."""
        self._hidden, self._given = kwargs["hidden_states"], kwargs
        return args, self._arguments(self._stretches[0])

    def after(self, number: int, layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
        """The output of a layer for all stretches, of which its module has computed the first."""
        outputs, memory = [output], self.memories[number]
        first, *others = self._stretches
        traces = iter(self._traces)
        self._keep(number, first, traces)
        for stretch in others:
            memory.begin(self._fold.advance(memory.state, stretch.between, slice(number, number + 1)))
            outputs.append(layer.forward(**self._arguments(stretch)))
            self._keep(number, stretch, traces)
        return torch.cat(outputs, dim=1)

    def _arguments(self, stretch: Stretch) -> dict[str, Any]:
        return {**self._given, "hidden_states": self._hidden[:, stretch.rows]}

    def _keep(self, number: int, stretch: Stretch, traces: Iterator[list[Trace]]) -> None:
        """Add what a layer keeps of the spans of a stretch to their traces."""
        recurrence, memory = self._fold.recurrence, self.memories[number]
        columns, hidden = memory.columns[0], self._hidden[0, stretch.rows]
        size = columns.shape[-1] - len(hidden)
        for start, end in pairwise(accumulate(stretch.lengths, initial=0)):
            left, own = columns[:, start : start + size], columns[:, start + size : end + size]
            next(traces).append(recurrence.keep(number, left, own, hidden[start:end]))
        # The columns of all layers together would take much memory until the end of the pass.
        memory.columns = memory.state.tail

    def finish(self) -> None:
        """Enter what was computed into the fold."""
        new = [
            Passage(span.num_tokens, stacked(traces)) for span, traces in zip(self._spans, self._traces, strict=True)
        ]
        rest = iter(new)
        passages = [
            passage
            for stretch in self._stretches
            for passage in (*stretch.between, *(next(rest) for _ in stretch.lengths))
        ]
        slots = (span.ranges[0].start for span in self._spans)
        state = stacked([memory.state for memory in self.memories])
        self._fold.enter(dict(zip(slots, new, strict=True)), passages, state)
