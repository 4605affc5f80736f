"""Eager twins of the patch kernels: the truth every other backend is held against, and the CPU path.

Shapes: L layers, H key/value heads, T tokens, D head dimension, r rank. Tables cos and sin are [T, D] in the
dtype of the keys, as the model's own rotary embedding makes them; they hold, component by component, what each is
multiplied by. "half": component i turns with i + R/2; "interleaved": 2i turns with 2i + 1.
"""

from __future__ import annotations

from typing import Literal

import torch

Pairs = Literal["half", "interleaved"]


def rotate(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, pairs: Pairs = "half") -> None:
    """out = R(position) keys, for keys and out [L, H, T, D], cos and sin [1 or L, T, R]. out must not overlap keys.

    Components from R on have no position and are copied. Each product and the sum are rounded to the dtype, in the
    model's own order, so that a key rotated here has the bits of a key the model rotated itself.
    """
    width = cos.shape[-1]
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    turned, rest = out[..., :width], out[..., width:]
    rest.copy_(keys[..., width:])
    torch.mul(keys[..., :width], cos, out=turned)
    half = width // 2
    first, second = (slice(half), slice(half, width)) if pairs == "half" else (slice(0, width, 2), slice(1, width, 2))
    turned[..., first] -= keys[..., second] * sin[..., first]
    turned[..., second] += keys[..., first] * sin[..., second]


def product(u: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """U V [T, W] in float32, for u [T, r] and v [r, W]; scale [r] belongs to factors in int8."""
    return (u.float() if scale is None else u.float() * scale) @ v.float()


def add_patch(
    keys: torch.Tensor, values: torch.Tensor, u: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None = None
) -> None:
    """keys += U Vk, values += U Vv, in place; arithmetic in float32, rounded once.

    keys: [H, T, D]. values: the same shape, or another number of heads and components. u: [T, r]. v: [r, numbers of
    a token's K and V], the columns of K by head, then those of V. scale: as in product.
    """
    change = product(u, v, scale).split([keys[:, 0].numel(), values[:, 0].numel()], dim=1)
    for states, part in zip((keys, values), change, strict=True):
        states.copy_(states.float() + part.unflatten(1, (states.shape[0], states.shape[2])).transpose(0, 1))
