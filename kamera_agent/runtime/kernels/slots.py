"""The slots of a span: half-open ranges of the pool, in token order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

# What selects the slots of a span from a buffer. A slice is a view and costs nothing; a tensor gathers or scatters.
Index = slice | torch.Tensor


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots for the tokens of a span, one per token.

    ranges: half-open ranges, in token order. The constructor joins neighbours and drops empty ranges, so a span that
        can be one range is one range.

        ranges      [40, 43)   [7, 9)
        tokens      [0, 3)     [3, 5)
        slots       40 41 42   7 8
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

    @property
    def num_tokens(self) -> int:
        """Number of slots, and of the tokens that they hold."""
        return sum(map(len, self.ranges))

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Per range, its tokens as a slice of the span, and its slots as a slice of the pool."""
        start = 0
        for part in self.ranges:
            yield slice(start, start + len(part)), slice(part.start, part.stop)
            start += len(part)

    def split(self, num_tokens: int) -> tuple[Slots, Slots]:
        """The slots of the first num_tokens tokens, and those of the others."""
        first, others = [], []
        for part in self.ranges:
            first.append(part[:num_tokens])
            others.append(part[num_tokens:])
            num_tokens = max(0, num_tokens - len(part))
        return Slots(tuple(first)), Slots(tuple(others))

    def start_and_index(self, device: torch.device) -> tuple[int, torch.Tensor | None]:
        """How a kernel finds the slot of token t: start + t, or index[t] where there is an index [T] int64."""
        if len(self.ranges) > 1:
            return 0, torch.cat([torch.arange(part.start, part.stop, device=device) for part in self.ranges])
        return (self.ranges[0].start if self.ranges else 0), None

    def index(self, device: torch.device) -> Index:
        """The slots as an index for a buffer on the device: a slice where they are one range."""
        start, index = self.start_and_index(device)
        return slice(start, start + self.num_tokens) if index is None else index
