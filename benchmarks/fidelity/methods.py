"""Methods of reusing the KV of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.fidelity.residue import Residue, edged, patched, with_factors
from benchmarks.fidelity.split import SPLIT_METHODS, Split, Stateless, Unfolded
from benchmarks.fidelity.state import KV, attending_in, recurrent_in
from kamera_agent.config import Settings
from kamera_agent.runtime.kernels.layers import tensors_of
from kamera_agent.runtime.patch import SCALE_BYTES, fit
from kamera_agent.runtime.patch import Patch as RuntimePatch

# Bytes per number of KV, as in models of ordinary use. The KV of the pocket model has four.
NUMBER_BYTES = 2
# An error budget that no patch within the byte budget meets, so the byte budget decides.
NO_ERROR = 1e-6


Base = Literal["canonical", "held"]


@dataclass(frozen=True, slots=True)
class Auto:
    """A patch of the runtime with rank="auto" and a share of the KV bytes.

    seen: the KV that it is fitted to. "fitted": as conditioned before the event. "other": after the same chunks in
    another order. "ideal": in the window after the event.
    base: the KV that it is fitted over. "held": as the chunk was first computed, after other chunks.
    """

    share: float
    seen: Literal["fitted", "other", "ideal"] = "fitted"
    base: Base = "canonical"

    def fit(self, conditioned: KV, base: KV) -> RuntimePatch:
        """Fit the patch, to the layers with K and V: recurrent ones stay those of the base."""
        ours, theirs = attending_in(conditioned), attending_in(base)
        budget = self.share * NUMBER_BYTES / theirs[0].keys.dtype.itemsize
        return fit(ours, theirs, Settings(rank="auto", error_budget=NO_ERROR, byte_budget=budget))

    def apply(self, patch: RuntimePatch, base: KV, conditioned: KV) -> KV:
        """The KV that the patch gives."""
        kv = (with_factors(*pair) for pair in zip(attending_in(base), patch.factors, strict=True))
        return (*kv, *(edged(*pair) for pair in zip(recurrent_in(base), recurrent_in(conditioned), strict=True)))

    def bytes_share(self, patch: RuntimePatch, base: KV) -> float:
        """Bytes of the factors over those of the K and V."""
        numbers = sum(state.numel() for layer in attending_in(base) for state in tensors_of(layer))
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

    def cost(self, residue: Residue, width: int) -> float:
        """Cost of one component of a layer with so many columns, as a count of numbers of the KV."""
        numbers = residue.num_tokens + residue.basis_bytes * width
        return (numbers + SCALE_BYTES) / NUMBER_BYTES if self.int8 else numbers

    def ranks(self, residue: Residue) -> list[int]:
        """Ranks by layer."""
        num_layers, largest = residue.strength.shape
        affordable = (self.share or 0) * residue.num_tokens * residue.width / self.cost(residue, residue.width)
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
    """Base KV with some tokens computed again: the first ones, or the share that deviates most.

    layers: those whose deviation chooses; None is all. The deviation is that of the KV of a full prefill. A pass
    through the first layers, with all tokens of stale chunks, finds it there; no method in use knows it in all layers.
    """

    first: int = 0
    share: float = 0.0
    base: Base = "canonical"
    layers: tuple[int, ...] | None = None

    def tokens(self, deviation: torch.Tensor) -> list[int]:
        """Indices of the tokens of a chunk to compute, in order. deviation [L, T]: squared, of its KV."""
        num_tokens = deviation.shape[1]
        if self.first:
            return list(range(min(self.first, num_tokens)))
        by_token = (deviation if self.layers is None else deviation[list(self.layers)]).sum(0)
        return sorted(by_token.topk(round(self.share * num_tokens)).indices.tolist())


@dataclass(frozen=True, slots=True)
class Moved:
    """The KV as it was computed before the event."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """The KV as it was computed before the event, with the stale chunks refreshed as the runtime does it."""


Method = Auto | Patch | Recompute | Moved | Refresh | Split | Unfolded | Stateless

RANKS = (1, 2, 4, 8, 16, 32)
SHARES = {"6pct": 0.06, "12pct": 0.12, "25pct": 0.25}
TIGHT = {"6pct": 0.06, "12pct": 0.12}
REFRESHED = {"10pct": 0.10, "25pct": 0.25, "40pct": 0.40}
# Layer 0 never deviates: its KV depends on the token alone.
FIRST_LAYERS = (1, 2)
METHODS: dict[str, Method] = {
    "blind": Patch(rank=0),
    "first_1": Recompute(first=1),
    "first_4": Recompute(first=4),
    "recompute_5pct": Recompute(share=0.05),
    "recompute_15pct": Recompute(share=0.15),
    **{f"rank_{rank}": Patch(rank=rank) for rank in RANKS},
    **{f"canonical_{name}": Auto(share) for name, share in SHARES.items()},
    **{f"even_{name}": Patch(share=share) for name, share in SHARES.items()},
    **{f"allotted_{name}": Patch(share=share, allotted=True) for name, share in TIGHT.items()},
    **{f"int8_{name}": Patch(share=share, int8=True) for name, share in TIGHT.items()},
    **{f"weighted_{name}": Patch(share=share, basis="weighted") for name, share in TIGHT.items()},
    **{f"all_{name}": Patch(share=share, basis="weighted", allotted=True, int8=True) for name, share in TIGHT.items()},
    "shared_12pct": Patch(share=0.12, basis="shared"),
    "orbit": Auto(0.25, seen="other"),
    "ideal_25pct": Auto(0.25, seen="ideal"),
    "full_rank": Patch(),
    **{f"base_{name}": Auto(share, base="held") for name, share in TIGHT.items()},
    "moved": Moved(),
    "refresh": Refresh(),
    **{
        f"refresh_{name}": Recompute(share=share, base="held", layers=FIRST_LAYERS) for name, share in REFRESHED.items()
    },
}
# The methods that are measured in every case, and those that are compared for every kind of attention.
MAIN = (
    *("blind", "recompute_15pct"),
    *(f"canonical_{name}" for name in SHARES),
    *(f"base_{name}" for name in TIGHT),
    *("moved", "refresh"),
)
PLAIN_METHODS = {
    name: method
    for name, method in METHODS.items()
    if name in (*MAIN, "first_4", "orbit", "ideal_25pct", "full_rank", *(f"rank_{rank}" for rank in RANKS))
}
# Those of models with recurrent layers.
HYBRID_METHODS: dict[str, Method] = {
    **PLAIN_METHODS,
    **SPLIT_METHODS,
    **{name: method for name, method in METHODS.items() if name.startswith("refresh_")},
}
