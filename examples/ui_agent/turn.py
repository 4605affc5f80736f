"""What a model said about a window, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer to a question about screenshots.

    tokens: of the window by origin; a model that knows no other has "computed" only. logits: next-token logits
    [vocab] that the first token was drawn from.
    """

    answer: str
    tokens: Mapping[str, int]
    first_token_ms: float
    logits: torch.Tensor

    @property
    def computed(self) -> int:
        """Tokens that went through the model before the first token of the answer."""
        return self.tokens["computed"]

    @property
    def in_all(self) -> int:
        """Tokens of the window."""
        return sum(self.tokens.values())


class Arm(Protocol):
    """A way of running the model under test."""

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        """The greedy answer to a question about screenshots, encoded, oldest first."""
