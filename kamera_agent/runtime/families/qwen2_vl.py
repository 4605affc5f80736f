"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.local_tower import LocalTower
from kamera_agent.runtime.families.mrope import MRope
from kamera_agent.runtime.families.processors import Processors


class Qwen2VL(MRope):
    """Qwen2-VL, Qwen2.5-VL and models made of them, such as UI-TARS (arXiv 2409.12191, 2502.13923)."""

    model_types = ("qwen2_vl", "qwen2_5_vl")

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        self._local_tower = LocalTower.of(model.model.visual)

    def encode(self, chunk: Chunk) -> torch.Tensor:
        if self._local_tower is None:
            return super().encode(chunk)
        patches = self._patchifier.patches(chunk.pixels).to(self.device, self.model.dtype)
        return self._local_tower(patches).to(self.decoder.dtype)
