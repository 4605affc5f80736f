"""Eager twins of the kernels: the truth every other backend is held against, and what the CPU runs.

L layers, T tokens, S slots; Hk heads of keys of Dk components, Hv heads of values of Dv (for MLA one head each: k_pe
and the latent). R components of a key turn, the others are copied; r is the rank of a layer's patch.

cos, sin [1 or L, T, R], in the KV dtype, hold what each component is multiplied by, as the model's own rotary embedding
made them: one table for all layers, or one a layer. The tables carry every kind of RoPE there is (M-RoPE's sections,
yarn's scaling), so no kernel knows of any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.slots import Slots

# Which components of a key turn together: "half", i with i + R/2; "interleaved", 2i with 2i + 1.
Pairs = Literal["half", "interleaved"]

# Layers are worked on a few at a time, so that what one pass wrote is still in the cache for the next.
CACHE_BYTES = 1 << 20


def relocate(
    masters: torch.Tensor,
    keys: torch.Tensor,
    slots: Slots,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """keys = R(position) masters in the given slots; the other slots are not touched.

    masters, keys: [L, Hk, S, Dk], contiguous. slots: of T tokens.
    """
    crossed = _crossed(sin, pairs)
    for tokens, place in slots.parts():
        size = (masters.shape[1], tokens.stop - tokens.start, cos.shape[-1])
        step = max(1, CACHE_BYTES // max(1, math.prod(size) * masters.element_size()))
        room = masters.new_empty(min(step, len(masters)), *size)
        for first in range(0, len(masters), step):
            layers = slice(first, first + step)
            turn = layers if len(cos) > 1 else slice(None)
            there = layers, slice(None), place
            _turn(masters[there], cos[turn, tokens], crossed[turn, tokens], keys[there], pairs, room)


def rebuild(
    masters: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: Slots,
    canonical: Sequence[LayerKV],
    factors: Sequence[Factors] | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pairs: Pairs,
) -> None:
    """masters = K + U Vk, keys = R(position) masters, values = V + U Vv in the given slots, all layers.

    masters, keys: [L, Hk, S, Dk]; values: [L, Hv, S, Dv]; contiguous. slots: as for relocate.
    canonical, factors: per layer; None for no patch at all.

    Sums are float32 and rounded once. Canonical KV and factors lie on the pool's device and are not written to.
    """
    num_tokens = slots.num_tokens
    key_sum, value_sum = (
        torch.empty(buffer.shape[1], num_tokens, buffer.shape[3], device=buffer.device) for buffer in (masters, values)
    )
    room = masters.new_empty(masters.shape[1], num_tokens, cos.shape[-1])
    crossed = _crossed(sin, pairs)
    for layer, kv in enumerate(canonical):
        states = _patched(kv, None if factors is None else factors[layer], LayerKV(key_sum, value_sum))
        turn = -1 if len(cos) == 1 else layer
        for tokens, place in slots.parts():
            master, value = (buffer[layer, :, place] for buffer in (masters, values))
            master.copy_(states.keys[:, tokens])
            value.copy_(states.values[:, tokens])
            _turn(master, cos[turn, tokens], crossed[turn, tokens], keys[layer, :, place], pairs, room[:, tokens])


def rotate(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, pairs: Pairs = "half") -> None:
    """out = R(position) keys, for keys and out [..., H, T, D], cos and sin [..., T, R]. out must not overlap keys.

    Components from R on have no position and are copied. Each product and the sum are rounded to the dtype, in the
    model's own order, so that a key rotated here has the bits of a key the model rotated itself.
    """
    room = keys.new_empty(*keys.shape[:-1], cos.shape[-1])
    _turn(keys, cos, _crossed(sin, pairs), out, pairs, room)


def _turn(
    keys: torch.Tensor,
    cos: torch.Tensor,
    crossed: torch.Tensor,
    out: torch.Tensor,
    pairs: Pairs,
    room: torch.Tensor,
) -> None:
    """As rotate, for the sines that _crossed gave; room [>= ..., H, T, R] is written over."""
    width = cos.shape[-1]
    first, second = _members(width, pairs)
    turned, rest, room = out[..., :width], out[..., width:], room[: len(keys)]
    # Products over whole rows: over halves of rows they take twice the time.
    torch.mul(keys[..., :width], cos.unsqueeze(-3), out=turned)
    torch.mul(keys[..., :width], crossed.unsqueeze(-3), out=room)
    turned[..., first] -= room[..., second]
    turned[..., second] += room[..., first]
    rest.copy_(keys[..., width:])


def _crossed(sin: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    """What each component is multiplied by on its way to the other one of its pair: the sine that belongs to that."""
    first, second = _members(sin.shape[-1], pairs)
    crossed = torch.empty_like(sin)
    crossed[..., first], crossed[..., second] = sin[..., second], sin[..., first]
    return crossed


def _members(width: int, pairs: Pairs) -> tuple[slice, slice]:
    """The first components of the pairs, and the second ones."""
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
    """The numbers that a layer in int8 is worth, in float32; any other layer as it is."""
    if layer.key_steps is None or layer.value_steps is None:
        return layer
    return LayerKV(layer.keys * layer.key_steps, layer.values * layer.value_steps)


def _patched(kv: LayerKV, factors: Factors | None, sums: LayerKV) -> LayerKV:
    """A layer with its patch: float32, written over sums; the layer itself if nothing is added."""
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
