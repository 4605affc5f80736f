"""Hooks that see keys before RoPE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def capture_keys(modules: Sequence[nn.Module], sink: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """While open, call sink(layer, output) with what each module returns in a forward pass.

    modules: per layer, the module whose output is the keys before RoPE. The hooks are removed on the way
    out, whatever happened inside.
    """
    handles = []
    try:
        for layer, module in enumerate(modules):
            handles.append(module.register_forward_hook(_hook(layer, sink)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: int, sink: Callable[[int, torch.Tensor], None]) -> Callable[..., None]:
    def see(module: nn.Module, args: object, output: torch.Tensor) -> None:
        sink(layer, output)

    return see
