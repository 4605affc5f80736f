"""Patches: how a chunk's KV in one context differs from its base, as thin factors.

Method: the conditioning residue and its truncated SVD, arXiv 2606.23581. For rank="auto" we add ranks that differ
between layers, and factors in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError
from kamera_agent.runtime.compression import to_int8
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import product

# A component of int8 factors has one scale in float32.
SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Patch:
    """Factors of the residue (conditioned - base), per layer, over tokens x [K | V] before RoPE.

    factors: per layer, in the KV dtype, or in int8 for rank="auto".
    energy: per layer, the share of the residue's squared norm that the factors capture; 1.0 where the residue is zero.
    error: Frobenius norm of what the rounded factors leave of the residue over all layers, relative to the residue.
    norm: per layer, the norm of the residue relative to the norm of the conditioned KV.
    """

    factors: tuple[Factors, ...]
    energy: tuple[float, ...]
    error: float
    norm: tuple[float, ...]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank per layer."""
        return tuple(factors.u.shape[1] for factors in self.factors)


def flatten(kv: Sequence[LayerKV]) -> torch.Tensor:
    """One float32 matrix per layer: [L, T, W], the columns of K head by head, then those of V."""
    parts = [[layer.keys for layer in kv], [layer.values for layer in kv]]
    return torch.cat([torch.stack(states).float().transpose(1, 2).flatten(2) for states in parts], dim=2)


def _no_tick() -> None:
    """Progress that nobody watches."""


def fit(
    conditioned: Sequence[LayerKV],
    base: Sequence[LayerKV],
    settings: Settings,
    tick: Callable[[], None] = _no_tick,
) -> Patch:
    """The patch of a chunk: the truncated SVD of its residue, layer by layer, in float32.

    conditioned, base: per layer, not in int8. tick: called before each layer is decomposed, which takes the time.
    Raises SettingError for a rank above the largest that the shape allows.
    """
    target = flatten(conditioned)
    residue = target - flatten(base)
    dtype = conditioned[0].keys.dtype
    decomposed = []
    for layer in residue:
        tick()
        decomposed.append(_decompose(layer))
    spectrum = torch.stack([squares for _, _, squares in decomposed])
    ranks = _choose_ranks(spectrum, residue.shape[1:].numel() * dtype.itemsize, sum(residue.shape[1:]), settings)
    truncated = [(left[:, :rank], basis[:rank]) for (left, basis, _), rank in zip(decomposed, ranks, strict=True)]
    if settings.rank == "auto":
        factors = tuple(rounded(u, v) for u, v in truncated)
    else:
        factors = tuple(Factors(u.to(dtype).contiguous(), v.to(dtype).contiguous()) for u, v in truncated)
    left_over = torch.stack([r - product(layer) for r, layer in zip(residue, factors, strict=True)])
    total = spectrum.sum(-1)
    captured = torch.stack([spectrum[layer, :rank].sum() for layer, rank in enumerate(ranks)])
    energy = torch.where(total > 0, captured / total.clamp_min(torch.finfo(total.dtype).tiny), 1.0)
    norm = residue.norm(dim=(1, 2)) / target.norm(dim=(1, 2)).clamp_min(torch.finfo(total.dtype).tiny)
    return Patch(factors, tuple(energy.tolist()), _ratio(left_over, residue), tuple(norm.tolist()))


def _decompose(residue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U·S [T, n], V^T [n, W] and the squared singular values [n] of a residue [T, W], largest first.

    The Gram matrix of the shorter side makes this several times faster than the SVD of a tall matrix. The small
    singular values are inaccurate, but the basis is orthonormal up to rounding, so projecting on it loses nothing.
    """
    tall = residue.shape[0] >= residue.shape[1]
    gram = residue.mT @ residue if tall else residue @ residue.mT
    _, vectors = torch.linalg.eigh(gram)
    vectors = vectors.flip(-1)
    if tall:
        left, basis = residue @ vectors, vectors.mT
        return left, basis, left.square().sum(0)
    basis = vectors.mT @ residue
    return vectors, basis, basis.square().sum(1)


def rounded(left: torch.Tensor, basis: torch.Tensor) -> Factors:
    """Factors in int8, of U [T, r] and V [r, W]."""
    (u, u_step), (v, v_step) = to_int8(left, 0), to_int8(basis, 1)
    return Factors(u.contiguous(), v.contiguous(), u_step[0] * v_step[:, 0])


def _choose_ranks(spectrum: torch.Tensor, kv_bytes: int, component_numbers: int, settings: Settings) -> list[int]:
    """Rank per layer. kv_bytes: of one layer. component_numbers: numbers in the factors of one component."""
    num_layers, largest = spectrum.shape
    if settings.rank == "auto":
        affordable = settings.byte_budget * num_layers * kv_bytes / (component_numbers + SCALE_BYTES)
        return _ranks_within_budgets(spectrum, int(affordable), settings.error_budget)
    if settings.rank > largest:
        raise SettingError(f"rank is {settings.rank}, above {largest}, the largest that this chunk allows; lower it.")
    return [settings.rank] * num_layers


def _ranks_within_budgets(spectrum: torch.Tensor, affordable: int, error_budget: float) -> list[int]:
    """The smallest rank per layer that keeps the error within the budget.

    Where these ranks take more components than the bytes afford, the components that capture least are left out,
    whichever layer they belong to.
    """
    total = spectrum.sum(-1, keepdim=True)
    tail = (total - spectrum.cumsum(-1)).clamp_min(0)
    needed = (tail > error_budget**2 * total).sum(-1) + (total[:, 0] > 0)
    wanted = torch.arange(spectrum.shape[1], device=spectrum.device) < needed[:, None]
    if int(wanted.sum()) > affordable:
        strongest = spectrum.masked_fill(~wanted, -1.0).flatten().topk(affordable).indices
        wanted = torch.zeros_like(wanted).flatten().index_fill(0, strongest, True).view_as(wanted)
    ranks: list[int] = wanted.sum(-1).tolist()
    return ranks


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    norm = float(whole.norm())
    return float(part.norm()) / norm if norm > 0 else 0.0
