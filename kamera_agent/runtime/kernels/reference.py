"""Eager twins of the kernels: the reference for every other backend, and the code that the CPU runs.

L layers, T tokens, S slots; Hk heads of keys with Dk components, Hv heads of values with Dv components (for MLA one
head each: k_pe and the latent). R components of a key turn, and the others are copied.

cos, sin [1 or L, T, R], in the KV dtype: cosine and sine for each component, from the model's own rotary embedding, in
one table for all layers or one per layer. Every kind of RoPE (M-RoPE's sections, yarn's scaling) is in the table, so no
kernel needs to know it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.slots import Slots

# The components of a key that turn together: "half", i with i + R/2; "interleaved", 2i with 2i + 1.
Pairs = Literal["half", "interleaved"]

# Bytes of keys that are turned at a time, so that the output of one pass is still in the cache for the next pass.
CACHE_BYTES = 1 << 20


def relocate(
    masters: torch.Tensor,
    keys: torch.Tensor,
    slots: Slots,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """keys = R(position) masters in the given slots. Other slots are not touched.

    masters, keys: [L, Hk, S, Dk], contiguous. slots: those of the T tokens.
    """
    crossed = _crossed(sin, pairs)
    for tokens, part in slots.parts():
        size = (masters.shape[1], tokens.stop - tokens.start, cos.shape[-1])
        step = max(1, CACHE_BYTES // max(1, math.prod(size) * masters.element_size()))
        scratch = masters.new_empty(min(step, len(masters)), *size)
        for first in range(0, len(masters), step):
            layers = slice(first, first + step)
            turn = layers if len(cos) > 1 else slice(None)
            chosen = layers, slice(None), part
            _turn(masters[chosen], cos[turn, tokens], crossed[turn, tokens], keys[chosen], pairs, scratch)


def rebuild(
    masters: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: Slots,
    base: Sequence[LayerKV],
    factors: Sequence[Factors] | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """masters = K + U Vk, keys = R(position) masters, values = V + U Vv in the given slots, in all layers.

    masters, keys: [L, Hk, S, Dk]; values: [L, Hv, S, Dv]; contiguous. slots: as for relocate.
    base, factors: per layer, on the device of the buffers; not written to. factors: None without a patch.

    Sums are float32 and rounded once.
    """
    key_sum, value_sum = (
        torch.empty(buffer.shape[1], slots.num_tokens, buffer.shape[3], device=buffer.device)
        for buffer in (masters, values)
    )
    scratch = masters.new_empty(masters.shape[1], slots.num_tokens, cos.shape[-1])
    crossed = _crossed(sin, pairs)
    for layer, kv in enumerate(base):
        states = _patched(kv, None if factors is None else factors[layer], LayerKV(key_sum, value_sum))
        turn = -1 if len(cos) == 1 else layer
        for tokens, part in slots.parts():
            master, value = (buffer[layer, :, part] for buffer in (masters, values))
            master.copy_(states.keys[:, tokens])
            value.copy_(states.values[:, tokens])
            _turn(master, cos[turn, tokens], crossed[turn, tokens], keys[layer, :, part], pairs, scratch[:, tokens])


def rotate(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, pairs: Pairs = "half") -> None:
    """out = R(position) keys, for keys and out [..., H, T, D], cos and sin [..., T, R]. out must not overlap keys.

    Components from R on have no position and are copied. Each product and the sum are rounded to the dtype, in the
    model's own order, so that a key turned here has the bits of a key that the model turned itself.
    """
    scratch = keys.new_empty(*keys.shape[:-1], cos.shape[-1])
    _turn(keys, cos, _crossed(sin, pairs), out, pairs, scratch)


def _turn(
    keys: torch.Tensor,
    cos: torch.Tensor,
    crossed: torch.Tensor,
    out: torch.Tensor,
    pairs: Pairs,
    scratch: torch.Tensor,
) -> None:
    """As rotate, for sines from _crossed. scratch [>= ..., H, T, R] is written over."""
    width = cos.shape[-1]
    first, second = _members(width, pairs)
    turned, rest, scratch = out[..., :width], out[..., width:], scratch[: len(keys)]
    # Products are taken over whole rows; over halves of rows they take twice the time.
    torch.mul(keys[..., :width], cos.unsqueeze(-3), out=turned)
    torch.mul(keys[..., :width], crossed.unsqueeze(-3), out=scratch)
    turned[..., first] -= scratch[..., second]
    turned[..., second] += scratch[..., first]
    rest.copy_(keys[..., width:])


def _crossed(sin: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """The sines, swapped within each pair: a component is multiplied by the sine of the other one, which it adds to."""
    first, second = _members(sin.shape[-1], pairs)
    crossed = torch.empty_like(sin)
    crossed[..., first], crossed[..., second] = sin[..., second], sin[..., first]
    return crossed


def _members(width: int, pairs: Pairs) -> tuple[slice, slice]:
    """The first components of all pairs, and the second ones."""
    if pairs == "half":
        return slice(0, width // 2), slice(width // 2, width)
    return slice(0, width, 2), slice(1, width, 2)


def product(factors: Factors) -> torch.Tensor:
    """U V [T, W] in float32."""
    return _scaled(factors) @ factors.v.float()


def _scaled(factors: Factors) -> torch.Tensor:
    """U [T, r] in float32, times the scale where there is one."""
    return factors.u.float() if factors.scale is None else factors.u.float() * factors.scale


def expanded(layer: LayerKV) -> LayerKV:
    """A layer in int8, multiplied out in float32; any other layer as it is."""
    if layer.key_steps is None or layer.value_steps is None:
        return layer
    return LayerKV(layer.keys * layer.key_steps, layer.values * layer.value_steps)


def _patched(kv: LayerKV, factors: Factors | None, sums: LayerKV) -> LayerKV:
    """A layer with its patch, in float32 and written over sums; the layer itself where nothing is added."""
    adds = factors is not None and factors.u.shape[1] > 0
    if kv.key_steps is None and not adds:
        return kv
    for total, state, step in ((sums.keys, kv.keys, kv.key_steps), (sums.values, kv.values, kv.value_steps)):
        total.copy_(state)
        if step is not None:
            total.mul_(step)
    if factors is not None and adds:
        left, split = _scaled(factors), sums.keys.shape[0] * sums.keys.shape[2]
        for total, right in ((sums.keys, factors.v[:, :split]), (sums.values, factors.v[:, split:])):
            by_head = right.float().unflatten(1, (len(total), -1)).transpose(0, 1)
            total.baddbmm_(left.expand(len(total), -1, -1), by_head)
    return sums
