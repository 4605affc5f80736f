"""What the layers of a model keep of a chunk, layer by layer: those with K and V first, and then the recurrent ones."""

from __future__ import annotations

from collections.abc import Sequence

from kamera_agent.runtime.kept import Kept
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.recurrence import Inputs, Map, stacked

Recurrent = Inputs | Map
Layer = LayerKV | Recurrent
KV = tuple[Layer, ...]


def layers_of(kept: Kept) -> KV:
    """The layers of what is kept."""
    return (*kept.kv, *kept.singles)


def kept_of(kv: KV) -> Kept:
    """What is kept, of its layers."""
    recurrent = recurrent_in(kv)
    return Kept(attending_in(kv), stacked(recurrent) if recurrent else None)


def attending_in(kv: KV) -> tuple[LayerKV, ...]:
    """The layers with K and V."""
    return tuple(layer for layer in kv if isinstance(layer, LayerKV))


def recurrent_in(kv: KV) -> tuple[Recurrent, ...]:
    """The recurrent layers."""
    return tuple(layer for layer in kv if not isinstance(layer, LayerKV))


def with_tokens(kv: KV, other: KV, tokens: Sequence[int]) -> KV:
    """Other K and V of some tokens. Recurrent layers stay as they are."""
    layers = list[LayerKV]()
    for layer, theirs in zip(attending_in(kv), attending_in(other), strict=True):
        keys, values = layer.keys.clone(), layer.values.clone()
        keys[:, tokens], values[:, tokens] = theirs.keys[:, tokens], theirs.values[:, tokens]
        layers.append(LayerKV(keys, values))
    return (*layers, *recurrent_in(kv))
