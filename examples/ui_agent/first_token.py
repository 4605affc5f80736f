"""The time to a model's first token, measured alike for every way of running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch


@dataclass(slots=True)
class FirstToken:
    """The first output of a model's head. ms: since the watch began. logits: [vocab] of the last position."""

    ms: float = 0.0
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def watch(model: Any) -> Iterator[FirstToken]:
    """Record the first output of a model's head, and its time."""
    first, start = FirstToken(), perf_counter()

    def note(module: object, inputs: object, logits: torch.Tensor) -> None:
        if not first.ms:
            first.logits = logits.detach().reshape(-1, logits.shape[-1])[-1].float()
            int(first.logits.argmax())  # waits for a GPU
            first.ms = 1e3 * (perf_counter() - start)

    handle = model.get_output_embeddings().register_forward_hook(note)
    try:
        yield first
    finally:
        handle.remove()
