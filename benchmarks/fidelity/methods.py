"""The ways of reusing a chunk's KV, each held against a full prefill."""

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

# What a number of KV takes in the models that people run. The pocket model's own takes four.
NUMBER_BYTES = 2
# Below any error that the bytes allow: the bytes decide.
NO_ERROR = 1e-6


@dataclass(frozen=True, slots=True)
class Auto:
    """What the runtime does for rank="auto" with a share of the KV bytes: the code that ships.

    seen: the KV it is fitted to. "fitted": the chunk as it was conditioned before the event. "other": behind another
    order. "ideal": in the very window that is shown.
    """

    share: float
    seen: Literal["fitted", "other", "ideal"] = "fitted"

    def fit(self, conditioned: KV, canonical: KV) -> RuntimePatch:
        """The patch."""
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
    """A patch of some rank in every layer, or of a share of the KV bytes.

    basis: what the components are taken from. "even": the truncated SVD. "weighted": the same in the metric of what
    reads the KV (metric.py). "shared": a basis shared with another order. allotted: the bytes go to the strongest
    components, whichever layer they are in. int8: factors in one byte a number where others, like the KV, take two.
    """

    rank: int | None = None
    share: float | None = None
    basis: Literal["even", "weighted", "shared"] = "even"
    allotted: bool = False
    int8: bool = False

    def cost(self, residue: Residue) -> float:
        """What one component costs, counted in numbers of the KV's size."""
        numbers = residue.num_tokens + residue.basis_bytes * residue.width
        return (numbers + SCALE_BYTES) / NUMBER_BYTES if self.int8 else numbers

    def ranks(self, residue: Residue) -> list[int]:
        """Rank per layer."""
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
    """Canonical KV with some tokens computed again: the first few, or a share of those that deviate most.

    The deviation is that of the true conditioned KV, summed over layers, which no real method of this kind knows.
    """

    first: int = 0
    share: float = 0.0

    def tokens(self, residue: Residue) -> list[int]:
        """Which tokens of a chunk, in order."""
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
# What is compared on every kind of attention: what ships, what others do, and plain ranks.
PLAIN_METHODS = {
    name: METHODS[name]
    for name in (
        *("blind", "first_4", "recompute_15pct", "patch_6pct", "patch_12pct", "patch_25pct", "orbit", "ideal_25pct"),
        *(f"rank_{rank}" for rank in RANKS),
        "full_rank",
    )
}
