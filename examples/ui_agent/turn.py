"""What a model said about a window, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

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


@dataclass(slots=True)
class FirstToken:
    """The first output of a model's head. ms: since the watch began."""

    ms: float = 0.0
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def watch(model: Any) -> Iterator[FirstToken]:
    """Note when a model's head gives its first output, and which: the same clock for every way of running it."""
    first, start = FirstToken(), perf_counter()

    def note(module: object, inputs: object, logits: torch.Tensor) -> None:
        if not first.ms:
            first.logits = logits.detach().reshape(-1, logits.shape[-1])[-1].float()
            int(first.logits.argmax())  # a GPU is waited for
            first.ms = 1e3 * (perf_counter() - start)

    handle = model.get_output_embeddings().register_forward_hook(note)
    try:
        yield first
    finally:
        handle.remove()
