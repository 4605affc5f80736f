"""A bank: what some layers of a model keep of the tokens in a pool. Its layers keep K and V of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from kamera_agent.runtime.kernels.dispatch import kernels_for
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, on_device
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots
from kamera_agent.runtime.upload import Group, Upload

# cos and sin [1 or L, T, R] at the positions of T tokens, in one table for all layers of a bank or one per layer.
Tables = tuple[torch.Tensor, torch.Tensor]


class Heads(NamedTuple):
    """The number of key or value heads in a layer, and of the components of one head."""

    num: int
    dim: int


class KVShape(NamedTuple):
    """What the layers of a bank have in common.

    layers: their numbers in the model, ascending. kind: of their attention.
    keys: heads of the part that RoPE turns (for MLA k_pe, one head). values: heads of the part without a position (for
        MLA the latent c_KV, one head).
    pairs: the components of a key that RoPE turns together.
    values_first: whether the model passes its cache the values before the keys.
    reach: number of tokens that a query sees, including its own; None for all.
    """

    layers: tuple[int, ...]
    kind: str
    keys: Heads
    values: Heads
    dtype: torch.dtype
    device: torch.device
    pairs: Pairs = "half"
    values_first: bool = False
    reach: int | None = None

    @property
    def token_bytes(self) -> int:
        """Bytes of the K and V of one token, over all layers."""
        numbers = self.keys.num * self.keys.dim + self.values.num * self.values.dim
        return len(self.layers) * numbers * self.dtype.itemsize


def banked(shapes: Iterable[KVShape]) -> tuple[KVShape, ...]:
    """The shapes of single layers, with those that differ in nothing but the layer as one."""
    alike: dict[KVShape, list[int]] = {}
    for shape in shapes:
        alike.setdefault(shape._replace(layers=()), []).extend(shape.layers)
    return tuple(shape._replace(layers=tuple(layers)) for shape, layers in alike.items())


class Bank:
    """The K and V of some layers, for the S slots of a pool.

    masters  [L, Hk, S, Dk]  K before RoPE
    keys     [L, Hk, S, Dk]  K turned to the position that the token has now; attention reads it
    values   [L, Hv, S, Dv]  V, which has no position

    K is kept twice because attention needs every key turned, while a move must start from the master: keys that are
    turned again and again would gather a rounding error with every move.
    """

    def __init__(self, shape: KVShape) -> None:
        self.shape = shape
        self._kernels = kernels_for(shape.device)
        self._upload: Upload | None = None
        self.masters: torch.Tensor
        self.keys: torch.Tensor
        self.values: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of the buffers."""
        return self.masters.nbytes + self.keys.nbytes + self.values.nbytes

    def resize(self, kept: Sequence[slice], capacity: int) -> None:
        """Copy slots, one range after the other, into buffers of another capacity."""
        shape = self.shape
        used = sum(part.stop - part.start for part in kept)
        for name, heads in (("masters", shape.keys), ("keys", shape.keys), ("values", shape.values)):
            size = (len(shape.layers), heads.num, capacity, heads.dim)
            buffer = torch.empty(size, dtype=shape.dtype, device=shape.device)
            if kept:
                old = getattr(self, name)
                torch.cat([old[:, :, part] for part in kept], 2, out=buffer[:, :, :used])
            # Attention reads free slots, too: it gives them a weight of zero, and zero times NaN would be NaN.
            buffer[:, :, used:] = 0
            setattr(self, name, buffer)

    def take(self, slots: Slots, other: Bank, theirs: Slots) -> None:
        """Copy a span of the same bank of another pool."""
        here, there = slots.index(self.shape.device), theirs.index(self.shape.device)
        for name in ("masters", "keys", "values"):
            getattr(self, name)[:, :, here] = getattr(other, name)[:, :, there]

    def relocate(self, slots: Slots, tables: Tables) -> None:
        """Rewrite the turned keys of a span from its masters. tables: at its new positions."""
        self._kernels.relocate(self.masters, self.keys, slots, *tables, self.shape.pairs)

    def load(self, slots: Slots, base: Sequence[LayerKV], factors: Sequence[Factors] | None, tables: Tables) -> None:
        """Rebuild a chunk in its slots: its base plus a patch, then one rotation to its positions.

        base, factors: per layer of the bank, on the CPU or on the bank's device; factors: None for a base as it is.
            Neither is written to.
        tables: at its positions.
        """
        for layers, kv, patch in self._groups(base, factors):
            turns = tables if len(tables[0]) == 1 else (tables[0][layers], tables[1][layers])
            buffers = self.masters[layers], self.keys[layers], self.values[layers]
            self._kernels.rebuild(*buffers, slots, kv, patch, *turns, self.shape.pairs)

    def _groups(self, base: Sequence[LayerKV], factors: Sequence[Factors] | None) -> Iterable[Group]:
        """The layers of a chunk on the bank's device: group by group from the CPU to a GPU, all at once otherwise."""
        if self.shape.device.type == "cuda" and not base[0].keys.is_cuda:
            if self._upload is None:
                self._upload = Upload(self.shape.device)
            return self._upload.groups(base, factors)
        kv = [on_device(layer, self.shape.device) for layer in base]
        patch = None if factors is None else [on_device(layer, self.shape.device) for layer in factors]
        return [Group(slice(0, len(kv)), kv, patch)]

    def read(self, slots: Slots) -> list[LayerKV]:
        """A copy of a span's KV, per layer. The caller owns it."""
        # Another thread uses it while this window goes on, so even a single range must not be a view; cat copies.
        masters, values = (
            torch.cat([buffer[:, :, part] for _, part in slots.parts()], dim=2)
            for buffer in (self.masters, self.values)
        )
        return list(map(LayerKV, masters.unbind(), values.unbind()))


class Row(NamedTuple):
    """One layer of the model in its bank. number: among the layers of the bank."""

    bank: Bank
    number: int

    @property
    def masters(self) -> torch.Tensor:
        """K before RoPE [Hk, S, Dk]."""
        return self.bank.masters[self.number]

    @property
    def keys(self) -> torch.Tensor:
        """K turned to the positions of the tokens [Hk, S, Dk]."""
        return self.bank.keys[self.number]

    @property
    def values(self) -> torch.Tensor:
        """V [Hv, S, Dv]."""
        return self.bank.values[self.number]
