"""Where tokens go: a run of slots as its first number, anything else as a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch


class Slots(NamedTuple):
    """Slots of num_tokens tokens: start, start + 1, ... where places is None, otherwise places [num_tokens] int64."""

    num_tokens: int
    start: int
    places: torch.Tensor | None


def slots_of(ranges: Sequence[range], device: torch.device) -> Slots:
    """The slots of half-open ranges in token order."""
    num_tokens = sum(map(len, ranges))
    if all(before.stop == behind.start for before, behind in pairwise(ranges)):
        return Slots(num_tokens, ranges[0].start if ranges else 0, None)
    parts = [torch.arange(part.start, part.stop, device=device) for part in ranges]
    return Slots(num_tokens, 0, torch.cat(parts))
