"""AdamW with warm-up, cosine decay and clipped gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

CLIP_NORM = 1.0
WARM_UP = 0.05
LOWEST = 0.02


class Schedule:
    """An optimiser over modules. Its learning rate rises to peak in the first steps and then falls along a cosine."""

    def __init__(self, modules: Iterable[nn.Module], peak: float) -> None:
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
        self._peak = peak

    def step(self, loss: torch.Tensor, done: float) -> None:
        """Take one step along the gradient of a loss. done: share of the training that is done, 0 to 1."""
        cosine = LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self._peak * min(1.0, done / WARM_UP + LOWEST) * cosine
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
