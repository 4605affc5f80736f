"""Hooks that see keys before RoPE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident

import torch
from torch import nn

Sink = Callable[[int, torch.Tensor], None]


@contextmanager
def capture_keys(modules: Sequence[nn.Module], sink: Sink) -> Iterator[None]:
    """While open, call sink(layer, output) with what each module returns in a forward pass of this thread.

    modules: per layer, the module whose output is the keys before RoPE. The hooks are removed on the way
    out, whatever happened inside. A forward pass that another thread runs on the same model is not seen.
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
    def see(module: nn.Module, args: object, output: torch.Tensor) -> None:
        if get_ident() == thread:
            sink(layer, output)

    return see
