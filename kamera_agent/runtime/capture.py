"""Forward hooks that receive keys before RoPE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import torch
from torch import nn

Sink = Callable[[int, torch.Tensor], None]


@contextmanager
def capture_keys(modules: Sequence[nn.Module], sink: Sink) -> Iterator[None]:
    """While open, pass each module's output in this thread's forward passes to sink(layer, output).

    modules: per layer, the module whose output is the keys before RoPE. The hooks are removed on exit, also after an
    error.
    """
    handles = []
    try:
        for layer, module in enumerate(modules):
            handles.append(module.register_forward_hook(_hook(layer, sink, get_ident())))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: int, sink: Sink, thread: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: object, output: torch.Tensor) -> None:
        # A hook belongs to the module, not to a thread: a pass that the caller runs on the same model in another thread
        # triggers it as well, and its keys must not enter a pool.
        if get_ident() == thread:
            sink(layer, output)

    return hook
