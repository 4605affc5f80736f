"""When a model says its first token, by one clock for every way of running it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch


@dataclass(slots=True)
class FirstToken:
    """The first output of a model's head. ms: since the watch began."""

    ms: float = 0.0
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def watch(model: Any) -> Iterator[FirstToken]:
    """Note when a model's head gives its first output, and which."""
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
