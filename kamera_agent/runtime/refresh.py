"""Refresh: some tokens of stale spans are computed again in a turn's forward pass, which chooses them on the way.

layers                    tokens of stale spans that are computed, beside the new runs
before the first choice   all
before the second         those whose KV departs most from what the spans hold, twice as many as after it
after the second          of these, again those that depart most

A token that goes no further keeps what its span holds in later layers. A layer's K and V are known before the layer is
computed, so only their projections are computed for tokens that do not go on. A span is computed whole where those of
its tokens that do not go on would leave too much that departs: a part of it would not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.kv_pool import KVPool
from kamera_agent.runtime.slot_cache import KVKnown, Queries

# The share of the KV of the stale spans, in tokens times layers, that is computed; of those computed in part.
BUDGET = 0.35
# The share of the tokens that are computed in all layers even where that exceeds the budget: in a model of few layers.
LEAST = 0.18
# A span is computed whole if the tokens that would not go on leave more than this: the mean over the span's tokens of
# what they depart by at the first choice, squared and relative to the KV, summed over the layers that follow. What the
# layers add to a deviation is independent, so its square grows with the depth.
LEFT = 0.4
# The same for all spans of a pass in which one lacks something: what that is, an answer may need.
LEFT_LACKING = 0.045
# The shares of the layers before the two choices.
CHOICES = 0.13, 0.4


class Refreshed(NamedTuple):
    """A span after its refresh. The tensors are on the CPU.

    departures [T]: per token, the squared deviation of its KV from what the span held, relative to the mean square and
        summed over the layers up to the last choice that the token took part in.
    depths [T]: per token, the number of layers that were computed.
    """

    departures: torch.Tensor
    depths: torch.Tensor

    def computed(self, num_layers: int) -> float:
        """The share of the span's KV that was computed, in tokens times layers."""
        return float(self.depths.sum()) / (num_layers * len(self.depths))


def stages(num_layers: int) -> dict[int, float]:
    """The layers before which tokens are chosen, and the share of the stale tokens that go on."""
    # K and V of layer 0 depend on the token alone, those of layer 1 on what the token reads. From layer 2 on, they show
    # as well what it reads by way of another token.
    first, second = (max(least, round(share * num_layers)) for least, share in enumerate(CHOICES, start=2))
    share = max((BUDGET * num_layers - first) / (2 * (second - first) + num_layers - second), LEAST)
    return {first: 2 * share, second: share}


def what_is_left(departures: torch.Tensor, now: torch.Tensor, share: float) -> torch.Tensor:
    """The mean departure in a layer that a span keeps if this share of its tokens goes on.

    departures [T]: of its tokens, which choose those. now [T]: what they depart by in that layer alone.
    """
    return now.index_fill(0, choose(departures, int(share * len(now))), 0).mean()


def choose(departures: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Which tokens go on: the indices of those that depart most. departures [n]: of all spans computed in part.

    The spans share one budget: one that departs little leaves its tokens to the others.
    """
    return departures.topk(num_tokens).indices


class Refresh:
    """The refresh in one forward pass.

    queries: the tokens that the pass computes: those of the stale spans, and then others. num_layers: of the model.
    spans: the slots of each stale span. lacking: whether one of them has chunks before it that it has not seen, or saw
    in other places.
    """

    def __init__(self, pool: KVPool, num_layers: int, slots: Slots, spans: Sequence[Slots], *, lacking: bool) -> None:
        device = pool.device
        self.queries = Queries(slots.index(device))
        self._pool = pool
        self._num_layers, self._stages = num_layers, stages(num_layers)
        self._lengths = [span.num_tokens for span in spans]
        self._limit = LEFT_LACKING if lacking else LEFT
        num_tokens = sum(self._lengths)
        # The slots of the pass; the rows that are still computed, and the stale tokens among them.
        self._slots = torch.arange(pool.capacity, device=device)[self.queries.index]
        self._rows = torch.arange(len(self._slots), device=device)
        self._tokens = self._rows[:num_tokens]
        self._departures = torch.zeros(num_tokens, device=device)
        self._depths = torch.zeros(num_tokens, dtype=torch.long, device=device)
        # Of these, the tokens of spans computed whole, and those of the others; how many the others have in all.
        self._whole, self._parts = self._tokens[:0], self._tokens
        self._num_parts = num_tokens
        # What several layers get, such as tables: by its id, as it is and for the rows.
        self._narrowed: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        # The input of the present layer, and what the stale spans hold in it.
        self._input: torch.Tensor
        self._held: Sequence[torch.Tensor]

    @property
    def refreshed(self) -> list[Refreshed]:
        """The stale spans, in order, after the pass."""
        split = (figures.cpu().split(self._lengths) for figures in (self._departures, self._depths))
        return [Refreshed(*parts) for parts in zip(*split, strict=True)]

    def _read(self, number: int) -> Sequence[torch.Tensor]:
        """K before RoPE and V [H, T, D] of the stale spans in a layer. Indexing copies."""
        row = self._pool.rows[number]
        stale = self._slots[: len(self._depths)].to(row.bank.shape.device)
        return row.masters[:, stale], row.values[:, stale]

    def before(self, number: int, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a layer for the rows that it computes."""
        self._input = args[0] if args else kwargs["hidden_states"]
        if number <= max(self._stages):
            self._held = self._read(number)
        if number in self._stages:
            self._probe(layer, self._narrow(args), self._narrow(kwargs))
            departures = self._depart(number)
            if number == min(self._stages):
                self._find_whole(number, departures)
            self._choose(self._stages[number])
        self._depths[self._tokens] += 1
        return self._narrow(args), self._narrow(kwargs)

    def after(self, number: int, layer: nn.Module, output: Any) -> Any:
        """The output of a layer for all rows. Those that were not computed keep its input."""
        if number < max(self._stages) and number not in self._stages:
            self._depart(number)
        hidden, *others = output if isinstance(output, tuple) else (output,)
        whole = self._input.to(hidden.device).index_copy(-2, self._rows.to(hidden.device), hidden)
        return (whole, *others) if isinstance(output, tuple) else whole

    def _probe(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        """Bring K and V of a layer into the pool, without computing the layer."""
        self.queries.probed = True
        try:
            layer.forward(*args, **kwargs)
        except KVKnown:
            self.queries.probed = False

    def _depart(self, number: int) -> torch.Tensor:
        """Add what the tokens depart by in a layer, and return it. K and V count alike, whatever their sizes."""
        departures = torch.zeros_like(self._departures)
        for held, found in zip(self._held, self._read(number), strict=True):
            off, size = (part.square().sum((0, 2)) for part in (found.float() - held, held.float()))
            departures += (off / size.mean()).to(departures.device)
        self._departures += departures
        return departures

    def _find_whole(self, number: int, departures: torch.Tensor) -> None:
        """Find the spans that are computed whole. number: of the layer. departures: those in it alone."""
        share, growth = self._stages[number], sum(range(number, self._num_layers)) / number
        spans = zip(self._departures.split(self._lengths), departures.split(self._lengths), strict=True)
        left = torch.stack([what_is_left(*span, share) for span in spans])
        # All are read at once: a GPU's queue runs empty at every read.
        whole = [growth * mean > self._limit for mean in left.tolist()]
        # On the CPU, which knows the lengths: the size of a selection would have to be read from the device.
        is_whole = torch.tensor(whole).repeat_interleave(torch.tensor(self._lengths))
        self._whole, self._parts = (mask.nonzero()[:, 0].to(self._tokens.device) for mask in (is_whole, ~is_whole))
        self._num_parts = len(self._parts)

    def _choose(self, share: float) -> None:
        self._parts = self._parts[choose(self._departures[self._parts], int(share * self._num_parts))]
        others = self._rows[len(self._tokens) :]
        # In the order of the window: then they attend in few groups.
        self._tokens = torch.cat([self._whole, self._parts]).sort().values
        self._rows = torch.cat([self._tokens, others])
        self.queries.index = self._slots[self._rows]
        self._narrowed = {}

    def _narrow(self, value: Any) -> Any:
        """An argument of a layer, for the rows that it computes."""
        if len(self._rows) == self._input.shape[-2]:
            return value
        if isinstance(value, torch.Tensor):
            return self._narrow_tensor(value)
        if type(value) in (tuple, list):
            return type(value)(map(self._narrow, value))
        if type(value) is dict:
            return {name: self._narrow(part) for name, part in value.items()}
        return value

    def _narrow_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """[..., Q, N] in hidden states, tables and masks; [..., Q] in numbers of positions and kinds of tokens."""
        axis = -2 if tensor.is_floating_point() or tensor.is_complex() else -1
        if tensor.dim() < -axis or tensor.shape[axis] != self._input.shape[-2]:
            return tensor
        if tensor is self._input:
            return tensor.index_select(axis, self._rows.to(tensor.device))
        if id(tensor) not in self._narrowed:
            self._narrowed[id(tensor)] = tensor, tensor.index_select(axis, self._rows.to(tensor.device))
        return self._narrowed[id(tensor)][1]
