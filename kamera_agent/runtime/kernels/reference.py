"""Eager twins of the patch kernels: the truth every other backend is held against, and the CPU path.

Shapes: L layers, H key/value heads, T tokens, D head dimension, r rank. Tables cos and sin are [T, D] in the
dtype of the keys, as the model's own rotary embedding makes them. Pairs are HALF: component i turns with i + D/2.
"""

from __future__ import annotations

import torch


def rotate(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> None:
    """out = R(position) keys, for keys and out of shape [..., T, D]. out must not overlap keys.

    Each product and the sum are rounded to the dtype, in the model's own order, so that a key rotated
    here has the bits of a key the model rotated itself.
    """
    half = keys.shape[-1] // 2
    torch.mul(keys, cos, out=out)
    out[..., :half] -= keys[..., half:] * sin[..., :half]
    out[..., half:] += keys[..., :half] * sin[..., half:]


def product(u: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """U V [T, W] in float32, for u [T, r] and v [r, W]; scale [r] belongs to factors in int8."""
    return (u.float() if scale is None else u.float() * scale) @ v.float()


def add_patch(
    keys: torch.Tensor, values: torch.Tensor, u: torch.Tensor, v: torch.Tensor, scale: torch.Tensor | None = None
) -> None:
    """keys += U Vk, values += U Vv, in place; arithmetic in float32, rounded once.

    keys, values: [H, T, D]. u: [T, r]. v: [r, 2·H·D], the columns of K by head, then those of V. scale: as in product.
    """
    num_heads, num_tokens, head_dim = keys.shape
    change = product(u, v, scale).view(num_tokens, 2, num_heads, head_dim).permute(1, 2, 0, 3)
    keys.copy_(keys.float() + change[0])
    values.copy_(values.float() + change[1])
