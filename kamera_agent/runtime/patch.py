"""Patches: how a chunk's KV in one context differs from its base, as thin factors.

Method: the conditioning residue and its truncated SVD, arXiv 2606.23581. For rank="auto" we add ranks that differ
between layers, and factors in int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError
from kamera_agent.runtime.compression import to_int8
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import product
from kamera_agent.runtime.recurrence import Inputs, Map

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
        return tuple(factors.u.shape[-1] for factors in self.factors)


def matrix(layer: LayerKV | Inputs | Map) -> torch.Tensor:
    """A layer as one float32 matrix [T, W], or as one per head.

    Of K and V: the columns of K head by head, then those of V. Of a recurrent layer, see its trace.
    """
    if not isinstance(layer, LayerKV):
        return layer.matrix[0].float()
    return torch.cat([states.float().transpose(0, 1).flatten(1) for states in (layer.keys, layer.values)], dim=1)


def _no_tick() -> None:
    """Progress that nobody watches."""


def fit(
    conditioned: Sequence[LayerKV | Inputs | Map],
    base: Sequence[LayerKV | Inputs | Map],
    settings: Settings,
    tick: Callable[[], None] = _no_tick,
) -> Patch:
    """The patch of a chunk: the truncated SVD of its residue, layer by layer, in float32.

    conditioned, base: per layer, not in int8. tick: called before each layer is decomposed, which takes the time.
    Raises SettingError for a rank above the largest that the shape allows.
    """
    targets = [matrix(layer) for layer in conditioned]
    residues = [target - matrix(layer) for target, layer in zip(targets, base, strict=True)]
    dtype = conditioned[0][0].dtype
    decomposed = []
    for residue in residues:
        tick()
        decomposed.append(_decompose(residue))
    spectra = _together([squares for _, _, squares in decomposed])
    ranks = _choose_ranks(spectra, residues, dtype, settings)
    truncated = [
        (left[..., :rank], basis[..., :rank, :]) for (left, basis, _), rank in zip(decomposed, ranks, strict=True)
    ]
    if settings.rank == "auto":
        factors = tuple(rounded(u, v) for u, v in truncated)
    else:
        factors = tuple(Factors(u.to(dtype).contiguous(), v.to(dtype).contiguous()) for u, v in truncated)
    left_over = _norms([residue - product(layer) for residue, layer in zip(residues, factors, strict=True)])
    total = torch.stack([squares.sum() for squares in spectra])
    captured = torch.stack([squares[:rank].sum() for squares, rank in zip(spectra, ranks, strict=True)])
    energy = torch.where(total > 0, captured / total.clamp_min(torch.finfo(total.dtype).tiny), 1.0)
    change = _norms(residues)
    norm = change / _norms(targets).clamp_min(torch.finfo(total.dtype).tiny)
    return Patch(factors, tuple(energy.tolist()), _ratio(left_over, change), tuple(norm.tolist()))


def _decompose(residue: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U·S [T, n], V^T [n, W] and the squared singular values [n] of a residue [T, W], largest first.

    A residue [H, T, W] is decomposed head by head, and its squares are those of all heads together.

    The Gram matrix of the shorter side makes this several times faster than the SVD of a tall matrix. The small
    singular values are inaccurate, but the basis is orthonormal up to rounding, so projecting on it loses nothing.
    """
    tall = residue.shape[-2] >= residue.shape[-1]
    gram = residue.mT @ residue if tall else residue @ residue.mT
    _, vectors = torch.linalg.eigh(gram)
    vectors = vectors.flip(-1)
    if tall:
        left, basis = residue @ vectors, vectors.mT
        return left, basis, left.square().flatten(0, -2).sum(0)
    basis = vectors.mT @ residue
    return vectors, basis, basis.square().sum(-1).reshape(-1, basis.shape[-2]).sum(0)


def rounded(left: torch.Tensor, basis: torch.Tensor) -> Factors:
    """Factors in int8, of U [T, r] and V [r, W]."""
    (u, u_step), (v, v_step) = to_int8(left, 0), to_int8(basis, 1)
    return Factors(u.contiguous(), v.contiguous(), u_step[0] * v_step[:, 0])


def _choose_ranks(
    spectra: Sequence[torch.Tensor], residues: Sequence[torch.Tensor], dtype: torch.dtype, settings: Settings
) -> list[int]:
    """Rank per layer. spectra: per layer, squared singular values [n]. residues: [T, W] each."""
    if settings.rank == "auto":
        budget = settings.byte_budget * sum(residue.numel() for residue in residues) * dtype.itemsize
        spectrum = pad_sequence([*spectra], batch_first=True)
        costs = torch.tensor([sum(residue.shape) + SCALE_BYTES for residue in residues], device=spectrum.device)
        return _ranks_within_budgets(spectrum, costs, budget, settings.error_budget)
    largest = max(map(len, spectra))
    if settings.rank > largest:
        raise SettingError(f"rank is {settings.rank}, above {largest}, the largest that this chunk allows; lower it.")
    return [min(settings.rank, len(squares)) for squares in spectra]


def _ranks_within_budgets(
    spectrum: torch.Tensor, costs: torch.Tensor, byte_budget: float, error_budget: float
) -> list[int]:
    """The smallest rank per layer that keeps the error within the budget.

    Where these ranks take more than the bytes, the components that capture least for their bytes are left out,
    whichever layer they belong to. spectrum [L, n]: padded with zeros. costs [L]: bytes of one component.
    """
    total = spectrum.sum(-1, keepdim=True)
    tail = (total - spectrum.cumsum(-1)).clamp_min(0)
    needed = (tail > error_budget**2 * total).sum(-1) + (total[:, 0] > 0)
    wanted = torch.arange(spectrum.shape[1], device=spectrum.device) < needed[:, None]
    worth = (spectrum / costs[:, None]).masked_fill(~wanted, -1.0).flatten()
    strongest = worth.argsort(descending=True)
    affordable = costs[:, None].expand_as(wanted).flatten()[strongest].cumsum(0) <= byte_budget
    kept = torch.empty_like(affordable).index_copy(0, strongest, affordable).view_as(wanted) & wanted
    ranks: list[int] = kept.sum(-1).tolist()
    return ranks


def _norms(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(_together([matrix.norm() for matrix in matrices]))


def _together(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors of layers, which may be on several devices, on that of the first."""
    return [tensor.to(tensors[0].device) for tensor in tensors]


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    """The norm of all parts relative to that of all wholes, from those of each."""
    norm = float(whole.norm())
    return float(part.norm()) / norm if norm > 0 else 0.0
