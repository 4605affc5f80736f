"""Forward hooks that change what modules of one model compute, in single forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import get_ident
from typing import Any, Protocol

from torch import nn
from torch.utils.hooks import RemovableHandle


class Change(Protocol):
    """What a pass changes."""

    def before(self, number: int, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments that a layer gets instead of these."""

    def after(self, number: int, layer: nn.Module, output: Any) -> Any:
        """The output of a layer instead of this one."""


class Gate:
    """Where what a forward pass changes meets the layers of one model.

    current: a thread and the change of its forward pass; None leaves the layers alone. It is set and cleared by
        assignment, which an interrupt cannot split.
    """

    def __init__(self) -> None:
        self.current: tuple[int, Change] | None = None

    def install(self, layers: Sequence[nn.Module], handles: list[RemovableHandle]) -> None:
        """Hook layers, and append a handle of each hook. The hooks are for the life of the model's engine."""
        for number, layer in enumerate(layers):
            handles.append(layer.register_forward_pre_hook(partial(_before, self, number), with_kwargs=True))
            handles.append(layer.register_forward_hook(partial(_after, self, number)))


def _before(gate: Gate, number: int, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    # As with a Tap, only the passes of the engine's own thread are meant.
    if (current := gate.current) and current[0] == get_ident():
        return current[1].before(number, layer, args, kwargs)
    return None


def _after(gate: Gate, number: int, layer: nn.Module, args: Any, output: Any) -> Any:
    if (current := gate.current) and current[0] == get_ident():
        return current[1].after(number, layer, output)
    return output
