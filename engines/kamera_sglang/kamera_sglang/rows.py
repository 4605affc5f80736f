"""The KV of tokens in a row, cut and joined. Layers are [H, T, D] each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.runtime.kernels.slots import Index


class Row(NamedTuple):
    """The KV of a page: that of some tokens of those in layers."""

    layers: Sequence[LayerKV]
    tokens: slice


def cut(layer: LayerKV, tokens: Index) -> LayerKV:
    """Of a layer, the KV of some tokens."""
    return LayerKV(layer.keys[:, tokens], layer.values[:, tokens])


def joined(parts: Sequence[LayerKV]) -> LayerKV:
    """A layer, from the KV of its parts."""
    return LayerKV(torch.cat([part.keys for part in parts], 1), torch.cat([part.values for part in parts], 1))
