"""The ways of reusing a chunk's KV, each held against a full prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.fidelity.bench import KV
from benchmarks.fidelity.residue import Residue, patched


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of some rank in every layer, or of a share of the KV bytes.

    fitted: over what. "fitted": the chunk as it was conditioned before the event. "weighted": the same, truncated by
    what reads the KV (metric.py). "other": behind another order. "shared": in a basis shared with that other order.
    "ideal": in the very window that is shown. allotted: the bytes go to the strongest components, whichever layer
    they are in. int8: factors in one byte a number where others, like the KV, take two.
    """

    rank: int | None = None
    share: float | None = None
    fitted: Literal["fitted", "weighted", "other", "shared", "ideal"] = "fitted"
    allotted: bool = False
    int8: bool = False

    def cost(self, residue: Residue) -> float:
        """What one component costs, counted in numbers of the KV's size."""
        numbers = residue.num_tokens + residue.basis_bytes * residue.width
        # Two scales of four bytes each.
        return numbers / 2 + 4 if self.int8 else numbers

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


Method = Patch | Recompute

SHARES = {"6pct": 0.06, "12pct": 0.12}
METHODS: dict[str, Method] = {
    "blind": Patch(rank=0),
    "first_1": Recompute(first=1),
    "first_4": Recompute(first=4),
    "recompute_5pct": Recompute(share=0.05),
    "recompute_15pct": Recompute(share=0.15),
    **{f"rank_{rank}": Patch(rank=rank) for rank in (1, 2, 4, 8, 16, 32)},
    **{f"patch_{name}": Patch(share=share) for name, share in SHARES.items()},
    "patch_25pct": Patch(share=0.25),
    **{f"allotted_{name}": Patch(share=share, allotted=True) for name, share in SHARES.items()},
    **{f"weighted_{name}": Patch(share=share, fitted="weighted") for name, share in SHARES.items()},
    **{f"both_{name}": Patch(share=share, fitted="weighted", allotted=True) for name, share in SHARES.items()},
    **{f"int8_{name}": Patch(share=share, int8=True) for name, share in SHARES.items()},
    **{f"small_{name}": Patch(share=share, allotted=True, int8=True) for name, share in SHARES.items()},
    "shared_12pct": Patch(share=0.12, fitted="shared"),
    "orbit": Patch(share=0.25, fitted="other"),
    "ideal_25pct": Patch(share=0.25, fitted="ideal"),
    "full_rank": Patch(),
}
