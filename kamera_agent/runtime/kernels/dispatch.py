"""Where a device finds its kernels."""

from __future__ import annotations

from typing import Protocol, cast

import torch

from kamera_agent.runtime.kernels import reference
from kamera_agent.runtime.kernels.reference import Pairs


class Kernels(Protocol):
    """The operations a backend provides; signatures and shapes as in reference.py."""

    def rotate(
        self, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, pairs: Pairs = "half"
    ) -> None: ...

    def add_patch(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        u: torch.Tensor,
        v: torch.Tensor,
        scale: torch.Tensor | None = None,
    ) -> None: ...


def kernels_for(device: torch.device) -> Kernels:
    """The backend of a device. Every device runs the eager twins until it has kernels of its own."""
    del device
    return cast(Kernels, reference)
