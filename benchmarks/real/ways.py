"""Ways to reuse the KV of the documents after an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.fidelity.residue import flatten, with_factors
from benchmarks.fidelity.state import KV, attending_in
from kamera_agent.config import Settings
from kamera_agent.runtime.kernels.layers import tensors_of
from kamera_agent.runtime.patch import fit

# Ways that are patches, with their base: "canonical", or "first", the KV as computed after other documents.
PATCHED: dict[str, tuple[str, Settings]] = {
    "rank_32": ("canonical", Settings(rank=32)),
    "auto_canonical": ("canonical", Settings(rank="auto")),
    "auto_base": ("first", Settings(rank="auto")),
}


class Fitted(NamedTuple):
    """KV that a patch gives. bytes_share: bytes of the patch over those of the KV.

    ranks [L]; errors [L]: norm of what the patch leaves of the residue, relative to the residue; norms [L]: norm of the
    residue relative to the KV.
    """

    kv: KV
    bytes_share: float
    ranks: torch.Tensor
    errors: torch.Tensor
    norms: torch.Tensor


def patched(kv: KV, base: KV, settings: Settings) -> Fitted:
    """The base with the patch that is fitted to some KV."""
    patch = fit(kv, base, settings)
    given = tuple(with_factors(layer, factors) for layer, factors in zip(base, patch.factors, strict=True))
    target = flatten(kv)
    left, residue = (target - flatten(given)).norm(dim=(1, 2)), (target - flatten(base)).norm(dim=(1, 2))
    patch_bytes = sum(tensor.nbytes for factors in patch.factors for tensor in tensors_of(factors))
    kv_bytes = sum(tensor.nbytes for layer in attending_in(kv) for tensor in tensors_of(layer))
    errors = left / residue.clamp_min(torch.finfo(residue.dtype).tiny)
    return Fitted(given, patch_bytes / kv_bytes, torch.tensor(patch.ranks), errors, torch.tensor(patch.norm))


def by_layer(patches: Sequence[Fitted]) -> dict[str, Any]:
    """JSON of means over documents."""
    figures = {
        name: torch.stack([getattr(patch, name) for patch in patches]).double().mean(0).tolist()
        for name in ("ranks", "errors", "norms")
    }
    return {"bytes_share": sum(patch.bytes_share for patch in patches) / len(patches), **figures}
