"""Forward hooks that receive keys before RoPE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import get_ident

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Sink = Callable[[int, torch.Tensor], None]


class Tap:
    """Where the keys of one model go.

    current: a thread and the sink(layer, keys) for its forward passes; None passes nothing on. It is set and cleared by
        assignment, which an interrupt cannot split.
    """

    def __init__(self) -> None:
        self.current: tuple[int, Sink] | None = None

    def install(self, modules: Mapping[int, nn.Module], handles: list[RemovableHandle]) -> None:
        """Hook modules, and append a handle of each hook. modules: by layer, the one whose output holds the keys.

        The hooks are for the life of the model's engine. Adding and removing them for each pass takes longer, and an
        interrupt could leave some of them behind.
        """
        for layer, module in modules.items():
            handles.append(module.register_forward_hook(partial(_pass_on, self, layer)))


def _pass_on(tap: Tap, layer: int, module: nn.Module, args: object, output: torch.Tensor) -> None:
    # A hook belongs to the module, not to a thread: a pass that the caller runs on the same model in another thread
    # triggers it as well, and its keys must not enter a pool.
    if (current := tap.current) and current[0] == get_ident():
        current[1](layer, output)


def remove(handles: Sequence[RemovableHandle]) -> None:
    """Take hooks off."""
    for handle in handles:
        handle.remove()


@contextmanager
def capture_keys(modules: Mapping[int, nn.Module], sink: Sink) -> Iterator[None]:
    """While open, pass the modules' outputs in this thread's forward passes to a sink. For a pass at load."""
    tap, handles = Tap(), list[RemovableHandle]()
    try:
        tap.install(modules, handles)
        tap.current = get_ident(), sink
        yield
    finally:
        remove(handles)
