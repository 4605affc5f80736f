"""Methods of reusing the KV of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.fidelity.bench import KV
from benchmarks.fidelity.residue import Residue, patched, with_factors
from kamera_agent.config import Settings
from kamera_agent.runtime.kernels.layers import tensors_of
from kamera_agent.runtime.patch import SCALE_BYTES, fit
from kamera_agent.runtime.patch import Patch as RuntimePatch

# Bytes per number of KV, as in models of ordinary use. The KV of the pocket model has four.
NUMBER_BYTES = 2
# An error budget that no patch within the byte budget meets, so the byte budget decides.
NO_ERROR = 1e-6


@dataclass(frozen=True, slots=True)
class Auto:
    """A patch of the runtime with rank="auto" and a share of the KV bytes.

    seen: the KV that it is fitted to. "fitted": as conditioned before the event. "other": after the same chunks in
    another order. "ideal": in the window after the event.
    """

    share: float
    seen: Literal["fitted", "other", "ideal"] = "fitted"

    def fit(self, conditioned: KV, canonical: KV) -> RuntimePatch:
        """Fit the patch."""
        budget = self.share * NUMBER_BYTES / canonical[0].keys.dtype.itemsize
        return fit(conditioned, canonical, Settings(rank="auto", error_budget=NO_ERROR, byte_budget=budget))

    def apply(self, patch: RuntimePatch, canonical: KV) -> KV:
        """The KV that the patch gives."""
        return tuple(with_factors(layer, factors) for layer, factors in zip(canonical, patch.factors, strict=True))

    def bytes_share(self, patch: RuntimePatch, canonical: KV) -> float:
        """Bytes of the factors over those of the KV."""
        numbers = sum(state.numel() for layer in canonical for state in tensors_of(layer))
        return sum(factor.nbytes for layer in patch.factors for factor in tensors_of(layer)) / (NUMBER_BYTES * numbers)


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch with the same rank in every layer, or with a share of the KV bytes.

    basis: "even" is the truncated SVD, "weighted" the SVD with weighted columns (metric.py), "shared" a basis shared
    with another order. allotted: the bytes go to the strongest components of all layers. int8: factors have one byte
    per number; otherwise they have two, like the KV.
    """

    rank: int | None = None
    share: float | None = None
    basis: Literal["even", "weighted", "shared"] = "even"
    allotted: bool = False
    int8: bool = False

    def cost(self, residue: Residue) -> float:
        """Cost of one component, as a count of numbers of the KV."""
        numbers = residue.num_tokens + residue.basis_bytes * residue.width
        return (numbers + SCALE_BYTES) / NUMBER_BYTES if self.int8 else numbers

    def ranks(self, residue: Residue) -> list[int]:
        """Ranks by layer."""
        num_layers, largest = residue.strength.shape
        affordable = (self.share or 0) * residue.num_tokens * residue.width / self.cost(residue)
        if self.allotted:
            chosen = residue.strength.flatten().topk(int(affordable * num_layers)).indices // largest
            return torch.bincount(chosen, minlength=num_layers).tolist()
        rank = int(affordable) if self.share else self.rank
        return [largest if rank is None else min(rank, largest)] * num_layers

    def apply(self, residue: Residue, ranks: Sequence[int]) -> KV:
        """The KV that the patch gives."""
        return patched(residue, ranks, int8=self.int8)


@dataclass(frozen=True, slots=True)
class Recompute:
    """Canonical KV with some tokens computed again: the first ones, or the share that deviates most.

    The deviation is that of the KV of a full prefill, summed over layers. No method in use knows it.
    """

    first: int = 0
    share: float = 0.0

    def tokens(self, residue: Residue) -> list[int]:
        """Indices of the tokens of a chunk to compute, in order."""
        if self.first:
            return list(range(min(self.first, residue.num_tokens)))
        deviation = (residue.left @ residue.basis).square().sum(dim=(0, 2))
        return sorted(deviation.topk(round(self.share * residue.num_tokens)).indices.tolist())


Method = Auto | Patch | Recompute

RANKS = (1, 2, 4, 8, 16, 32)
SHARES = {"6pct": 0.06, "12pct": 0.12, "25pct": 0.25}
TIGHT = {"6pct": 0.06, "12pct": 0.12}
METHODS: dict[str, Method] = {
    "blind": Patch(rank=0),
    "first_1": Recompute(first=1),
    "first_4": Recompute(first=4),
    "recompute_5pct": Recompute(share=0.05),
    "recompute_15pct": Recompute(share=0.15),
    **{f"rank_{rank}": Patch(rank=rank) for rank in RANKS},
    **{f"patch_{name}": Auto(share) for name, share in SHARES.items()},
    **{f"even_{name}": Patch(share=share) for name, share in SHARES.items()},
    **{f"allotted_{name}": Patch(share=share, allotted=True) for name, share in TIGHT.items()},
    **{f"int8_{name}": Patch(share=share, int8=True) for name, share in TIGHT.items()},
    **{f"weighted_{name}": Patch(share=share, basis="weighted") for name, share in TIGHT.items()},
    **{f"all_{name}": Patch(share=share, basis="weighted", allotted=True, int8=True) for name, share in TIGHT.items()},
    "shared_12pct": Patch(share=0.12, basis="shared"),
    "orbit": Auto(0.25, seen="other"),
    "ideal_25pct": Auto(0.25, seen="ideal"),
    "full_rank": Patch(),
}
# The methods that are compared for every kind of attention.
PLAIN_METHODS = {
    name: METHODS[name]
    for name in (
        *("blind", "first_4", "recompute_15pct", "patch_6pct", "patch_12pct", "patch_25pct", "orbit", "ideal_25pct"),
        *(f"rank_{rank}" for rank in RANKS),
        "full_rank",
    )
}
