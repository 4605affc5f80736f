"""The ways of reusing a chunk's KV, each held against a full prefill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks.fidelity.bench import KV
from kamera_agent.runtime.patch import flatten


class Residue(NamedTuple):
    """What a chunk lost: canonical KV, and the decomposition of (conditioned - canonical).

    left [L, T, n], basis [L, n, W]: the residue is their product, strongest component first, of strength [L, n].
    norms: per layer, the residue's norm relative to that of the conditioned KV.
    """

    canonical: KV
    conditioned: KV
    left: torch.Tensor
    basis: torch.Tensor
    strength: torch.Tensor
    norms: torch.Tensor


def decompose(conditioned: KV, canonical: KV, weights: torch.Tensor | None = None) -> Residue:
    """Full decomposition of the lost conditioning, per layer. weights [L, W]: what an error in a column counts."""
    target = flatten(conditioned)
    residue = target - flatten(canonical)
    scale = torch.ones(len(residue), residue.shape[2]) if weights is None else weights
    scaled = residue * scale[:, None]
    # Through the Gram matrix: ten times faster than a full SVD of so many small matrices.
    _, u = torch.linalg.eigh((scaled @ scaled.mT).double())
    u = u.flip(-1).float()
    basis = u.mT @ scaled
    norms = residue.norm(dim=(1, 2)) / target.norm(dim=(1, 2))
    return Residue(canonical, conditioned, u, basis / scale[:, None], basis.norm(dim=2), norms)


def patched(residue: Residue, ranks: Sequence[int]) -> KV:
    """Canonical KV and the strongest components of what was lost, so many per layer."""
    kv = []
    for layer, rank in enumerate(ranks):
        keys, values = residue.canonical[layer]
        num_heads, num_tokens, head_dim = keys.shape
        change = residue.left[layer, :, :rank] @ residue.basis[layer, :rank]
        change = change.view(num_tokens, 2, num_heads, head_dim).permute(1, 2, 0, 3)
        kv.append((keys + change[0], values + change[1]))
    return tuple(kv)


def rank_for(share: float, residue: Residue) -> int:
    """The rank whose factors take at most this share of the chunk's KV bytes."""
    num_tokens, width = residue.left.shape[1], residue.basis.shape[2]
    return int(share * num_tokens * width / (num_tokens + width))


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of some rank in every layer, or of a share of the KV bytes.

    allotted: the bytes go to the strongest components, whichever layer they are in. weighted: truncated by what
    reads the KV (metric.py). other: fitted behind another order.
    """

    rank: int | None = None
    share: float | None = None
    allotted: bool = False
    weighted: bool = False
    other: bool = False

    def ranks(self, residue: Residue) -> list[int]:
        """Rank per layer."""
        num_layers, largest = residue.strength.shape
        if self.allotted and self.share:
            num_tokens, width = residue.left.shape[1], residue.basis.shape[2]
            affordable = int(self.share * num_layers * num_tokens * width / (num_tokens + width))
            chosen = residue.strength.flatten().topk(affordable).indices // largest
            return torch.bincount(chosen, minlength=num_layers).tolist()
        rank = rank_for(self.share, residue) if self.share else self.rank
        return [largest if rank is None else min(rank, largest)] * num_layers


@dataclass(frozen=True, slots=True)
class Recompute:
    """Canonical KV with some tokens computed again: the first few, or a share of those that deviate most.

    The deviation is that of the true conditioned KV, summed over layers, which no real method of this kind knows.
    """

    first: int = 0
    share: float = 0.0

    def tokens(self, residue: Residue) -> list[int]:
        """Which tokens of a chunk, in order."""
        num_tokens = residue.left.shape[1]
        if self.first:
            return list(range(min(self.first, num_tokens)))
        deviation = (residue.left @ residue.basis).square().sum(dim=(0, 2))
        return sorted(deviation.topk(round(self.share * num_tokens)).indices.tolist())


Method = Patch | Recompute

METHODS: dict[str, Method] = {
    "blind": Patch(rank=0),
    "first_1": Recompute(first=1),
    "first_4": Recompute(first=4),
    "recompute_5pct": Recompute(share=0.05),
    "recompute_15pct": Recompute(share=0.15),
    **{f"rank_{rank}": Patch(rank=rank) for rank in (1, 2, 4, 8, 16, 32)},
    **{f"patch_{percent}pct": Patch(share=percent / 100) for percent in (6, 12, 25)},
    **{f"allotted_{percent}pct": Patch(share=percent / 100, allotted=True) for percent in (6, 12)},
    **{f"weighted_{percent}pct": Patch(share=percent / 100, weighted=True) for percent in (6, 12)},
    **{f"both_{percent}pct": Patch(share=percent / 100, allotted=True, weighted=True) for percent in (6, 12)},
    "orbit": Patch(share=0.25, other=True),
    "full_rank": Patch(),
}
