"""Recurrent layers: what they keep of a span, and what the span does to their state.

A layer's state goes from token to token, and no position enters it. So a span that moves keeps what it did to the
state, and the state after a window is the fold of its spans in their present order. What a layer makes of a token also
depends on the last few columns before its convolution; that stays as it was when the token was computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import nn

EVERY = slice(None)


class State(NamedTuple):
    """What L layers hand on from one token to the next.

    tail [L, C, K - 1]: the last columns before the convolution of width K. memory [L, H, Dk, Dv]: float32; without
        heads where there is only a convolution.
    """

    tail: torch.Tensor
    memory: torch.Tensor


class Columns(NamedTuple):
    """What L short convolutions keep of a span: its last columns, tail [L, C, at most K - 1]."""

    tail: torch.Tensor

    @property
    def edge(self) -> torch.Tensor:
        """What a patch has as a whole."""
        return self.tail

    def replaced(self, edge: torch.Tensor, matrix: torch.Tensor | None) -> Columns:
        """The same with another edge."""
        return Columns(edge)


class Inputs(NamedTuple):
    """What L layers of the gated delta rule keep of a short span: what their projections put out for its T tokens.

    tail [L, C, T]: columns before the convolution. left [L, C, K - 1]: those before the first, when it was computed.
    decay, rate [L, T, H]: what a and b of a token are made of.
    """

    tail: torch.Tensor
    left: torch.Tensor
    decay: torch.Tensor
    rate: torch.Tensor

    @property
    def edge(self) -> torch.Tensor:
        """What a patch has as a whole."""
        return self.left

    @property
    def matrix(self) -> torch.Tensor:
        """What a patch has factors of: [L, T, C + 2 H]."""
        return torch.cat([self.tail.mT, self.decay, self.rate], dim=-1)

    def replaced(self, edge: torch.Tensor, matrix: torch.Tensor | None) -> Inputs:
        """The same with another edge and, unless it is None, another matrix."""
        if matrix is None:
            return self._replace(left=edge)
        num_heads = self.rate.shape[-1]
        tail, decay, rate = matrix.split([self.tail.shape[1], num_heads, num_heads], dim=-1)
        return Inputs(tail.mT.contiguous(), edge, decay, rate)


class Map(NamedTuple):
    """What L layers of the gated delta rule keep of a long span: its map S <- M S + B.

    tail [L, C, at most K - 1]: its last columns before the convolution.
    kept [L, H, Dk, Dk]: M. added [L, H, Dk, Dv]: B.
    """

    tail: torch.Tensor
    kept: torch.Tensor
    added: torch.Tensor

    @property
    def edge(self) -> torch.Tensor:
        """What a patch has as a whole."""
        return self.tail

    @property
    def matrix(self) -> torch.Tensor:
        """What a patch has factors of, head by head: [L, H, Dk, Dk + Dv]."""
        return torch.cat([self.kept, self.added], dim=-1)

    def replaced(self, edge: torch.Tensor, matrix: torch.Tensor | None) -> Map:
        """The same with another edge and, unless it is None, another matrix."""
        if matrix is None:
            return self._replace(tail=edge)
        kept, added = matrix.split([self.kept.shape[-1], self.added.shape[-1]], dim=-1)
        return Map(edge, kept.contiguous(), added.contiguous())


Trace = Columns | Inputs | Map
Stacked = TypeVar("Stacked", bound=tuple[torch.Tensor, ...])


def at(stack: Stacked, layers: slice) -> Stacked:
    """Some of the layers."""
    return type(stack)(*(tensor[layers] for tensor in stack))


def stacked(parts: Sequence[Stacked]) -> Stacked:
    """The layers of several, together."""
    return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))


def trace_of(tensors: Sequence[torch.Tensor]) -> Trace | None:
    """A trace of its tensors, whose number tells its kind; None of none."""
    kinds: dict[int, type[Columns] | type[Inputs] | type[Map]] = {1: Columns, 3: Map, 4: Inputs}
    return kinds[len(tensors)](*tensors) if tensors else None


def num_bytes(stack: State | Trace) -> int:
    """Bytes of the tensors."""
    return sum(tensor.nbytes for tensor in stack)


class Recurrence(ABC):
    """The recurrent layers of a text model, stacked.

    kinds: what configurations call such layers. mixers: by the number of a layer in the model, its module that takes
    and returns hidden states. weights [L, C, 1, K]: of the convolutions.
    """

    kinds: ClassVar[tuple[str, ...]]
    # The names of a layer's mixer, and of the convolution in it.
    parts: ClassVar[tuple[str, str]]

    def __init__(self, layers: Mapping[int, nn.Module]) -> None:
        mixer, convolution = self.parts
        self.mixers: dict[int, Any] = {number: getattr(layer, mixer) for number, layer in layers.items()}
        self.weights = torch.stack([getattr(mixer, convolution).weight.detach() for mixer in self.mixers.values()])

    @property
    def start(self) -> State:
        """The state before the first token."""
        num_layers, width, _, size = self.weights.shape
        return State(self.weights.new_zeros(num_layers, width, size - 1), self.no_memory(num_layers))

    def no_memory(self, num_layers: int) -> torch.Tensor:
        """The memory of so many layers before the first token."""
        return torch.zeros(num_layers, 0, 0, 0, device=self.weights.device)

    def tail_of(self, columns: torch.Tensor) -> torch.Tensor:
        """The last columns [..., at most K - 1], which the convolution of later tokens reads."""
        return columns[..., max(0, columns.shape[-1] - self.weights.shape[-1] + 1) :]

    @abstractmethod
    def keep(self, layer: int, left: torch.Tensor, columns: torch.Tensor, hidden: torch.Tensor) -> Trace:
        """What a layer keeps of a span of T tokens; a copy.

        layer: its number among these layers. left [C, K - 1], columns [C, T]: before the convolution, of the tokens
        before the span and of its own. hidden [T, hidden]: what the mixer got.
        """

    @abstractmethod
    def join(self, traces: Sequence[Any]) -> Trace:
        """What the layers keep of spans of few tokens that were computed in a row, as one span."""

    @abstractmethod
    def num_bytes(self, num_tokens: int) -> int:
        """Bytes of what the layers keep of a span."""

    def fold(self, state: State, trace: Trace, layers: slice = EVERY) -> State:
        """The state of some of the layers after a span, of which they kept this."""
        return State(
            self.tail_of(torch.cat([state.tail, trace.tail], dim=-1)), self.advance(state.memory, trace, layers)
        )

    @abstractmethod
    def advance(self, memory: torch.Tensor, trace: Any, layers: slice) -> torch.Tensor:
        """The memory of some of the layers after a span."""
