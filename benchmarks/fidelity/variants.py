"""Variants of the KV of a window, and questions over all of them in one plain Hugging Face forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from benchmarks.fidelity.state import KV, attending_in, kept_of, recurrent_in
from kamera_agent.chunk import TextRun
from kamera_agent.runtime.engine import Placed
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.reference import rotate
from kamera_agent.runtime.recurrence import Recurrence, State
from kamera_agent.runtime.slot_cache import Memory, cache_argument


class Variants:
    """V windows of the same runs. Does not change with the questions."""

    @torch.no_grad()
    def __init__(self, family: Family, runs: Sequence[Placed], variants: Sequence[Sequence[KV]]) -> None:
        """runs: in the order of the window. variants: per window, the KV of each run."""
        self._family = family
        self._position = runs[-1].position + runs[-1].run.extent
        self._size = len(variants)
        positions = torch.cat([family.positions(placed.run, placed.position) for placed in runs], dim=1)
        self._kv = _turned(family, positions, variants)
        self._states = _folded(family.decoder.recurrence, variants) if family.decoder.recurrence else {}

    @torch.no_grad()
    def logits(self, question: TextRun, places: Sequence[int] = (-1,)) -> torch.Tensor:
        """Logits [V, places, vocab] after the tokens of a question at these places."""
        family = self._family
        text: Any = family.decoder.module
        first, extras = family.unpack(family.embed(question, None).expand(self._size, -1, -1))
        positions = family.positions(question, self._position)[:, None].expand(-1, self._size, -1)
        hidden = text(
            inputs_embeds=first,
            position_ids=positions if len(positions) > 1 else positions[0],
            **{cache_argument(text): self._cache()},
            **extras,
        ).last_hidden_state[:, list(places)]
        return family.logits(hidden)

    def _cache(self) -> Cache:
        numbers = range(max([*self._kv, *self._states]) + 1)
        layers = [Memory(self._states[number]) if number in self._states else DynamicLayer() for number in numbers]
        cache = Cache(layers=layers)
        for number, states in self._kv.items():
            cache.update(*states, number)
        return cache


def _turned(
    family: Family, positions: torch.Tensor, variants: Sequence[Sequence[KV]]
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """By layer, what its cache holds: keys at their positions and values, [V, H, T, D] each."""
    decoder = family.decoder
    numbers = {layer: number for number, layer in enumerate(sorted(decoder.key_modules))}
    layers = [[attending_in(kv) for kv in variant] for variant in variants]
    turned = {}
    for shape, tables in zip(decoder.shapes, decoder.rope_tables(positions), strict=True):
        for row, layer in enumerate(shape.layers):
            own = [[kv[numbers[layer]] for kv in variant] for variant in layers]
            masters = torch.stack([torch.cat([kv.keys for kv in variant], dim=1) for variant in own])
            values = torch.stack([torch.cat([kv.values for kv in variant], dim=1) for variant in own])
            cos, sin = (table[row if len(table) > 1 else 0] for table in tables)
            keys = torch.empty_like(masters)
            rotate(masters, cos, sin, out=keys, pairs=shape.pairs)
            turned[layer] = (values, keys) if shape.values_first else (keys, values)
    return turned


def _folded(recurrence: Recurrence, variants: Sequence[Sequence[KV]]) -> dict[int, State]:
    """By layer, the states [V, ...] after the window. A run that has no recurrent layers leaves them as they are."""
    # By the tensors before them: many variants differ in their K and V alone.
    known: dict[tuple[int, ...], State] = {(): recurrence.start}
    states = []
    for variant in variants:
        seen: tuple[int, ...] = ()
        for kv in variant:
            state = known[seen]
            if trace := kept_of(kv).trace:
                seen += tuple(id(tensor) for layer in recurrent_in(kv) for tensor in layer)
                known[seen] = known.get(seen) or recurrence.fold(state, trace)
        states.append(known[seen])
    tails, memories = (torch.stack(parts, dim=1) for parts in zip(*states, strict=True))
    return {layer: State(tails[row], memories[row]) for row, layer in enumerate(recurrence.mixers)}
