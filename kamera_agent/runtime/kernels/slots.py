"""The slots of a span: half-open ranges of the pool, in token order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Self

import torch

from kamera_agent.runtime.kernels.transfer import sent

# An index into the slots of a buffer. A slice gives a view; a tensor makes PyTorch gather or scatter.
Index = slice | torch.Tensor


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a span, one per token.

    ranges: half-open ranges in token order. Neighbours are joined and empty ranges dropped at construction, so slots in
        a row are always one range.

        tokens   [0, 3)     [3, 5)
        ranges   [40, 43)   [7, 9)
        slots    40 41 42   7 8
    """

    ranges: tuple[range, ...] = ()

    def __post_init__(self) -> None:
        joined: list[range] = []
        for part in self.ranges:
            if joined and joined[-1].stop == part.start:
                joined[-1] = range(joined[-1].start, part.stop)
            elif part:
                joined.append(part)
        object.__setattr__(self, "ranges", tuple(joined))

    @classmethod
    def of(cls, spans: Iterable[Slots]) -> Self:
        """The slots of spans in a row."""
        return cls(tuple(part for span in spans for part in span.ranges))

    @property
    def num_tokens(self) -> int:
        """Number of slots, and of the tokens that they hold."""
        return sum(map(len, self.ranges))

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Per range, a slice of the span's tokens and a slice of the pool's slots."""
        start = 0
        for part in self.ranges:
            yield slice(start, start + len(part)), slice(part.start, part.stop)
            start += len(part)

    def each(self) -> Iterator[int]:
        """The slot of each token."""
        return chain.from_iterable(self.ranges)

    def single(self) -> list[Slots]:
        """The slots of each token, as a span of its own."""
        return [Slots((range(slot, slot + 1),)) for slot in self.each()]

    def at(self, tokens: Iterable[int]) -> Slots:
        """The slots of some of the tokens, in this order."""
        slots = self.single()
        return Slots.of(slots[token] for token in tokens)

    def split(self, num_tokens: int) -> tuple[Slots, Slots]:
        """The slots of the first num_tokens tokens, and those of the rest."""
        first, rest = [], []
        for part in self.ranges:
            first.append(part[:num_tokens])
            rest.append(part[num_tokens:])
            num_tokens = max(0, num_tokens - len(part))
        return Slots(tuple(first)), Slots(tuple(rest))

    def start_and_index(self, device: torch.device) -> tuple[int, torch.Tensor | None]:
        """For a kernel: the slot of token t is index[t], for an index [T] int64, or start + t without one."""
        if len(self.ranges) > 1:
            return 0, sent(torch.cat([torch.arange(part.start, part.stop) for part in self.ranges]), device)
        return (self.ranges[0].start if self.ranges else 0), None

    def index(self, device: torch.device) -> Index:
        """The slots as an index into a buffer on the device: a slice where they are in a row."""
        start, index = self.start_and_index(device)
        return slice(start, start + self.num_tokens) if index is None else index


def index_of(rows: torch.Tensor, device: torch.device) -> Index:
    """Rows [N] int64, at least one, as an index into a buffer on a device: a slice where they are in a row."""
    in_a_row = bool((rows.diff() == 1).all())
    return slice(int(rows[0]), int(rows[-1]) + 1) if in_a_row else sent(rows, device)
