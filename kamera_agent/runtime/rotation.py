"""How a model turns its keys, in plain numbers: for the pages of an engine, whose model is not Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.bank import Heads, Tables
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.decoder import FULL
from kamera_agent.runtime.kernels.dispatch import kernels_for
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, on_device
from kamera_agent.runtime.kernels.reference import Pairs, rotate
from kamera_agent.runtime.kernels.slots import Slots

# Positions that the tables are compared at: the tables of a model with another rule differ at most of them.
NUM_SAMPLES = 64


class Rotation(NamedTuple):
    """RoPE of frequencies that never change, and the heads of the layers, which are all alike.

    frequencies [R]: turn of each component of a key per position, in radians.
    axes [R]: the axis of the positions that turns it: 0, or one of three for M-RoPE.
    scaling: factor of cos and sin. pairs: as of KVShape.
    num_layers: layers that keep K and V. heads: of K and of V. dtype: name of the KV's.
    """

    frequencies: tuple[float, ...]
    axes: tuple[int, ...]
    scaling: float
    pairs: Pairs
    num_layers: int
    heads: Heads
    dtype: str

    @classmethod
    def of(cls, family: Family) -> Self:
        """That of a model. Raises UnsupportedModelError where the pages of an engine cannot be made by it."""
        decoder = family.decoder
        _require_plain(family)
        shape = decoder.shapes[0]
        found = cls(
            frequencies=_per_component(decoder.frequencies["inv_freq"], shape.pairs),
            axes=_axes(family),
            scaling=float(getattr(decoder.rotary, "attention_scaling", 1.0)),
            pairs=shape.pairs,
            num_layers=len(shape.layers),
            heads=shape.keys,
            dtype=str(decoder.dtype).removeprefix("torch."),
        )
        found._check(family)
        return found

    @classmethod
    def from_json(cls, facts: Sequence[Any]) -> Self:
        """From the JSON array that a Rotation is."""
        frequencies, axes, scaling, pairs, num_layers, heads, dtype = facts
        return cls(tuple(frequencies), tuple(axes), scaling, pairs, num_layers, Heads(*heads), dtype)

    @property
    def kv_dtype(self) -> torch.dtype:
        """That of the KV."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def tables(self, positions: torch.Tensor) -> Tables:
        """cos and sin [1, T, R] in float32, for positions [A, T]."""
        axes = torch.tensor(self.axes, device=positions.device)
        frequencies = torch.tensor(self.frequencies, dtype=torch.float32, device=positions.device)
        angles = positions[axes].T.float() * frequencies
        return (angles.cos() * self.scaling)[None], (angles.sin() * self.scaling)[None]

    @torch.no_grad()
    def turned(
        self, base: Sequence[LayerKV], factors: Sequence[Factors] | None, positions: torch.Tensor
    ) -> Iterator[LayerKV]:
        """K after RoPE [H, T, D] and V [H, T, D] of each layer: base plus patch, turned to positions [A, T].

        base, factors: as for Bank.load(). The tensors are on the device of the positions, and new.
        """
        device, num_tokens = positions.device, positions.shape[1]
        cos, sin = (table.to(self.kv_dtype) for table in self.tables(positions))
        slots, rebuild = Slots((range(num_tokens),)), kernels_for(device).rebuild
        for number, layer in enumerate(base):
            masters, keys, values = torch.empty(
                3, 1, self.heads.num, num_tokens, self.heads.dim, dtype=self.kv_dtype, device=device
            )
            patch = None if factors is None else [on_device(factors[number], device)]
            rebuild(masters, keys, values, slots, [on_device(layer, device)], patch, cos, sin, self.pairs)
            yield LayerKV(keys[0], values[0])

    @torch.no_grad()
    def turned_back(self, layer: LayerKV, positions: torch.Tensor) -> LayerKV:
        """K before RoPE and V of a layer whose K is after RoPE, at positions [A, T]. The sums are float32."""
        [cos], [sin] = self.tables(positions.to(layer.keys.device))
        keys = torch.empty_like(layer.keys, dtype=torch.float32)
        rotate(layer.keys.float(), cos, -sin, keys, self.pairs)
        return LayerKV((keys / self.scaling**2).to(layer.keys.dtype), layer.values)

    def _check(self, family: Family) -> None:
        """Raise UnsupportedModelError unless the tables are the model's own."""
        generator = torch.Generator().manual_seed(0)
        limit = family.decoder.max_positions
        positions = torch.randint(limit, (family.num_axes, NUM_SAMPLES), generator=generator)
        [own], ours = family.decoder.rope_tables(positions), self.tables(positions)
        if not all(torch.equal(a.cpu(), b.to(a.dtype)) for a, b in zip(own, ours, strict=True)):
            raise UnsupportedModelError(
                f"The rotary embedding of {type(family.model).__name__} is not made of fixed frequencies, one axis of "
                "positions each; the pages of an engine cannot be turned by it."
            )


def _require_plain(family: Family) -> None:
    """Raise UnsupportedModelError, with the reason, for a model of which no page can be rebuilt alone."""
    decoder, name = family.decoder, type(family.model).__name__
    reasons = {
        "has recurrent layers, whose state is not in the pages": decoder.recurrence is not None,
        "keeps a latent (MLA) instead of K and V": decoder.attention == "MLA",
        "has layers of several kinds or shapes": len(decoder.shapes) > 1,
        "has sliding layers": any(kind != FULL for kind in decoder.kinds),
        "does not keep K and V in every layer": len(decoder.key_modules) != len(decoder.kinds),
        "changes its rotary frequencies with the length of a window": decoder.switch is not None,
        "has values of another shape than its keys": decoder.shapes[0].keys != decoder.shapes[0].values,
    }
    for reason, holds in reasons.items():
        if holds:
            raise UnsupportedModelError(f"{name} {reason}; a serving engine cannot use its chunks yet. Use Kamera.")


def _per_component(inv_freq: torch.Tensor, pairs: Pairs) -> tuple[float, ...]:
    """Frequency of each component, from those of the pairs [R / 2]."""
    both = inv_freq.repeat(2) if pairs == "half" else inv_freq.repeat_interleave(2)
    return tuple(both.float().tolist())


def _axes(family: Family) -> tuple[int, ...]:
    """The axis that turns each component: a step along it alone changes the sine."""
    # One token per axis, a step from the start along that axis.
    [(_, sin)] = family.decoder.rope_tables(torch.eye(family.num_axes, dtype=torch.long))
    return tuple((sin[0] != 0).int().argmax(0).tolist())
