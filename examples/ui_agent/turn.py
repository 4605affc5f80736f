"""A model's answer about a window, and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer to a question about screenshots.

    tokens: number of the window's tokens by origin; without a cache all are "computed". logits: next-token logits
    [vocab] from which the first token was drawn.
    """

    answer: str
    tokens: Mapping[str, int]
    first_token_ms: float
    logits: torch.Tensor

    @property
    def computed(self) -> int:
        """Number of tokens computed before the first token of the answer."""
        return self.tokens["computed"]

    @property
    def in_all(self) -> int:
        """Number of tokens in the window."""
        return sum(self.tokens.values())


class Arm(Protocol):
    """A way of running the model under test."""

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        """The greedy answer to a question about screenshots. screens: PNG, oldest first."""
