"""The tensors of one layer of a chunk: its KV, and the factors of its patch.

T tokens; Hk heads of keys with Dk components, Hv heads of values with Dv components (for MLA one head each: k_pe and
the latent); r is the rank of the layer's patch.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch

from kamera_agent.runtime.kernels.transfer import sent


class LayerKV(NamedTuple):
    """K before RoPE and V of one layer.

    keys [Hk, T, Dk], values [Hv, T, Dv]: in the KV dtype, or both in int8.
    key_steps [Hk, 1, Dk], value_steps [Hv, T, 1]: float32, the worth of one unit in int8; None otherwise.
    """

    keys: torch.Tensor
    values: torch.Tensor
    key_steps: torch.Tensor | None = None
    value_steps: torch.Tensor | None = None


class Factors(NamedTuple):
    """U V, which a patch adds to the KV of one layer. The rank may differ between layers, and may be 0.

    u [T, r], v [r, Hk·Dk + Hv·Dv]: in the KV dtype, or both in int8. The columns of v are those of K, head by head,
        then those of V.
    scale [r]: float32, one number per component that an int8 product is multiplied by; None otherwise.
    """

    u: torch.Tensor
    v: torch.Tensor
    scale: torch.Tensor | None = None


Layer = TypeVar("Layer", LayerKV, Factors)


def tensors_of(layer: LayerKV | Factors) -> tuple[torch.Tensor, ...]:
    """The tensors that are present, in the order of the fields. Absent ones come last: type(layer)(*these) is layer."""
    return tuple(tensor for tensor in layer if tensor is not None)


def on_device(layer: Layer, device: torch.device) -> Layer:
    """The layer on a device. A tensor that is on the device already is not copied."""
    return type(layer)(*(sent(tensor, device) for tensor in tensors_of(layer)))
