"""The lost conditioning of a chunk, decomposed into components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from benchmarks.fidelity.state import KV, Layer
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import product
from kamera_agent.runtime.patch import matrix, rounded


class Residue(NamedTuple):
    """Conditioned and canonical KV, and the decomposition of the lost conditioning, (conditioned - canonical).

    Where layers have matrices of several widths, W is the largest, and the others have columns of zeros.

    left [L, T, n], basis [L, n, W]: their product is the residue, with the strongest component first.
    strength [L, n]: norms of the components. norms [L]: norm of the residue relative to that of the conditioned KV.
    basis_bytes: share of the basis that counts for this patch.
    """

    conditioned: KV
    canonical: KV
    left: torch.Tensor
    basis: torch.Tensor
    strength: torch.Tensor
    norms: torch.Tensor
    basis_bytes: float = 1.0

    @property
    def num_tokens(self) -> int:
        """Tokens of the chunk."""
        return self.left.shape[1]

    @property
    def width(self) -> int:
        """Columns of [K | V]."""
        return self.basis.shape[2]

    @property
    def widths(self) -> list[int]:
        """Columns of each layer."""
        return [matrix(layer).shape[1] for layer in self.canonical]


def flatten(kv: Sequence[Layer]) -> torch.Tensor:
    """One float32 matrix per layer, with columns of zeros up to the widest: [L, T, W]."""
    matrices = [matrix(layer) for layer in kv]
    width = max(one.shape[1] for one in matrices)
    return torch.stack([pad(one, (0, width - one.shape[1])) for one in matrices])


def decompose(conditioned: KV, canonical: KV, weights: torch.Tensor | None = None) -> Residue:
    """Full decomposition of the lost conditioning by layer. weights [L, W]: weights of errors by column."""
    target = flatten(conditioned)
    residue = target - flatten(canonical)
    scale = torch.ones(len(residue), residue.shape[2]) if weights is None else weights
    scaled = residue * scale[:, None]
    # From the Gram matrix: ten times faster than a full SVD of many small matrices.
    _, u = torch.linalg.eigh((scaled @ scaled.mT).double())
    u = u.flip(-1).float()
    basis = u.mT @ scaled
    norms = residue.norm(dim=(1, 2)) / target.norm(dim=(1, 2))
    return Residue(conditioned, canonical, u, basis / scale[:, None], basis.norm(dim=2), norms)


def share_basis(conditioned: KV, other: KV, canonical: KV) -> Residue:
    """The residue of a chunk in a basis shared with another conditioning of it. Each counts half of the basis."""
    target = flatten(conditioned)
    residue, second = (flatten(kv) - flatten(canonical) for kv in (conditioned, other))
    both = torch.cat([residue, second], dim=1)
    energies, axes = torch.linalg.eigh((both.mT @ both).double())
    basis = axes.flip(-1).float().mT
    norms = residue.norm(dim=(1, 2)) / target.norm(dim=(1, 2))
    return Residue(
        conditioned, canonical, residue @ basis.mT, basis, energies.flip(-1).clamp_min(0).sqrt().float(), norms, 0.5
    )


def energy_ranks(residue: Residue, share: float = 0.9) -> torch.Tensor:
    """Number of components [L] by layer that hold this share of the energy."""
    energies = residue.strength.square()
    held = energies.cumsum(1) / energies.sum(1, keepdim=True).clamp_min(1e-30)
    return (held < share).sum(1).float() + 1


def patched(residue: Residue, ranks: Sequence[int], *, int8: bool = False) -> KV:
    """Canonical KV plus the strongest components of the residue. ranks: by layer. int8: round the factors to int8."""
    kv = []
    for layer, rank in enumerate(ranks):
        base = residue.canonical[layer]
        own = matrix(base).shape[1]
        factors = Factors(residue.left[layer, :, :rank], residue.basis[layer, :rank, :own])
        if rank:
            base = edged(base, residue.conditioned[layer])
        kv.append(with_factors(base, rounded(factors.u, factors.v) if int8 else factors))
    return tuple(kv)


def edged(layer: Layer, other: Layer) -> Layer:
    """A layer with the edge of another, which every patch of a recurrent layer has as a whole."""
    return layer if isinstance(layer, LayerKV) or isinstance(other, LayerKV) else layer.replaced(other.edge, None)


def with_factors(layer: Layer, factors: Factors) -> Layer:
    """A layer with what its factors add."""
    if not isinstance(layer, LayerKV):
        return layer.replaced(layer.edge, (layer.matrix.float() + product(factors)).to(layer.matrix.dtype))
    keys, values = layer.keys, layer.values
    change = product(factors).split([len(keys) * keys.shape[2], len(values) * values.shape[2]], dim=1)
    by_head = [
        part.unflatten(1, (len(states), -1)).transpose(0, 1)
        for part, states in zip(change, (keys, values), strict=True)
    ]
    return LayerKV(keys + by_head[0], values + by_head[1])
