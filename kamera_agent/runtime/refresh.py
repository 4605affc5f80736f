"""Refresh: some tokens of stale spans are computed again in a turn's forward pass, which chooses them on the way.

layers before `first`   all tokens of the stale spans, and the new runs
layer `first`           K and V of all of them; then the tokens are chosen whose KV departs most from what the span held
from there on           the chosen tokens and the new runs; the other tokens keep what the span held

So in the first layers the KV of a stale span becomes as exact as what is before it, and no layer is computed twice, but
for the projections of layer `first`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.slot_cache import KVKnown, Queries

# The share of the layers that are computed for all tokens of a stale span: at least one, because K and V of the very
# first layer depend on nothing before a token. The share of the tokens that go on.
FIRST_LAYERS, GOING_ON = 0.05, 0.19


class Refreshed(NamedTuple):
    """A span after its refresh.

    departures [T]: per token, the squared deviation of its KV in the first layers from what the span held, relative to
        the span's mean. tokens [n]: the tokens that were computed in all layers, ascending.
    """

    departures: torch.Tensor
    tokens: torch.Tensor

    def computed(self, num_layers: int) -> float:
        """The share of the span's KV that was computed, in tokens times layers."""
        first = num_first(num_layers)
        return (first + (num_layers - first) * len(self.tokens) / len(self.departures)) / num_layers


def num_first(num_layers: int) -> int:
    """The number of layers that are computed for all tokens of a stale span."""
    return min(max(1, round(FIRST_LAYERS * num_layers)), num_layers - 1)


def choose(departures: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tokens [n] of each stale span that go on, ascending. departures: per span, [T].

    The spans share one budget: one that departs little leaves its tokens to the others.
    """
    ends = [len(span) for span in departures]
    chosen = torch.zeros(sum(ends), dtype=torch.bool, device=departures[0].device)
    chosen[torch.cat([*departures]).topk(round(GOING_ON * len(chosen))).indices] = True
    return [span.nonzero()[:, 0] for span in chosen.split(ends)]


class Refresh:
    """The refresh in one forward pass.

    queries: the tokens that the pass computes: those of the stale spans, and then others. spans: the slots of each
        stale span. refreshed: per span, once the pass is done.
    """

    def __init__(self, pool: KVPool, slots: Slots, spans: Sequence[Slots]) -> None:
        self.queries = Queries(slots.index(pool.shape.device))
        self.refreshed: list[Refreshed] = []
        self._pool, self._spans = pool, spans
        self._first = num_first(pool.shape.num_layers)
        self._held = [self._read(span) for span in spans]
        # The rows that go on, once they are chosen, and the input of the present layer.
        self._rows = self._input = torch.empty(0)

    def _read(self, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        """A copy of a span's K before RoPE and V in the layers that tokens are chosen by: [first, T, H·D] each."""
        layers, index = slice(1, self._first + 1), slots.index(self._pool.shape.device)
        keys, values = (buffer[layers, :, index] for buffer in (self._pool.masters, self._pool.values))
        return keys.transpose(1, 2).flatten(2).clone(), values.transpose(1, 2).flatten(2).clone()

    def before(self, number: int, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """The arguments of a layer for the rows that it computes; None leaves them alone."""
        if number < self._first:
            return None
        self._input = args[0] if args else kwargs["hidden_states"]
        num_rows = self._input.shape[1]
        if number == self._first:
            self._probe(layer, args, kwargs)
            self._rows = self._choose(num_rows)
        return _narrow(args, num_rows, self._rows), _narrow(kwargs, num_rows, self._rows)

    def after(self, number: int, output: Any) -> Any:
        """The output of a layer for all rows. Those that do not go on keep its input."""
        if number < self._first:
            return output
        hidden, *others = output if isinstance(output, tuple) else (output,)
        whole = self._input.index_copy(1, self._rows, hidden)
        return (whole, *others) if isinstance(output, tuple) else whole

    def _probe(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        """Bring the K and V of all rows in a layer into the pool, without computing the layer."""
        self.queries.probed = True
        try:
            layer.forward(*args, **kwargs)
        except KVKnown:
            self.queries.probed = False

    def _choose(self, num_rows: int) -> torch.Tensor:
        """The rows that go on; from here on, the pass computes their slots."""
        departures = [_departures(*pair) for pair in zip(self._held, map(self._read, self._spans), strict=True)]
        tokens = choose(departures)
        self.refreshed = [Refreshed(*pair) for pair in zip(departures, tokens, strict=True)]
        going_on = torch.ones(num_rows, dtype=torch.bool, device=self._pool.shape.device)
        start = 0
        for span in self.refreshed:
            num_tokens = len(span.departures)
            going_on[start : start + num_tokens] = False
            going_on[start + span.tokens] = True
            start += num_tokens
        rows = going_on.nonzero()[:, 0]
        index = self.queries.index
        self.queries.index = index.start + rows if isinstance(index, slice) else index[rows]
        return rows


def _departures(held: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> torch.Tensor:
    """Squared deviation [T] of K and V [first, T, N] relative to the mean over the tokens, summed over layers."""
    old, new = (torch.cat([*parts], dim=2).float() for parts in (held, found))
    off, size = (old - new).square().sum(2), new.square().sum(2)
    return (off / size.mean(1, keepdim=True)).sum(0)


def _narrow(value: Any, num_rows: int, rows: torch.Tensor) -> Any:
    """An argument of a layer, with these of the Q rows.

    [..., Q, N] in hidden states, tables and masks; [..., Q] in numbers of positions and kinds of tokens.
    """
    if isinstance(value, torch.Tensor):
        axis = -2 if value.is_floating_point() or value.is_complex() else -1
        return value.index_select(axis, rows) if value.dim() >= -axis and value.shape[axis] == num_rows else value
    if type(value) in (tuple, list):
        return type(value)(_narrow(part, num_rows, rows) for part in value)
    if type(value) is dict:
        return {name: _narrow(part, num_rows, rows) for name, part in value.items()}
    return value


class Gate:
    """Tells the layers of one model which rows to compute.

    current: a thread and the refresh of its forward pass; None leaves the layers alone. It is set and cleared by
        assignment, which an interrupt cannot split.
    """

    def __init__(self) -> None:
        self.current: tuple[int, Refresh] | None = None

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
        return current[1].after(number, output)
    return output
