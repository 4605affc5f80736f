"""Layers that are a short convolution and nothing else, as most of LFM2."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kamera_agent.runtime.recurrence import Columns, Recurrence


class ShortConvolution(Recurrence):
    """Short convolutions. All that they keep of a span is the columns that tokens after it read."""

    kinds = ("conv",)
    parts = ("conv", "conv")

    def keep(self, layer: int, left: torch.Tensor, columns: torch.Tensor, hidden: torch.Tensor) -> Columns:
        return Columns(self.tail_of(columns)[None].clone())

    def join(self, traces: Sequence[Columns]) -> Columns:
        return Columns(self.tail_of(torch.cat([trace.tail for trace in traces], dim=-1)))

    def num_bytes(self, num_tokens: int) -> int:
        num_layers, width, _, size = self.weights.shape
        return num_layers * width * min(num_tokens, size - 1) * self.weights.itemsize

    def advance(self, memory: torch.Tensor, trace: Columns, layers: slice) -> torch.Tensor:
        return memory
