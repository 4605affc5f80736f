"""Token embeddings for each layer, beside those that enter the first one (Gemma 3n, Gemma 4)."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Run
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.transfer import sent


class PerLayer(Family):
    """A family whose text model adds an embedding of each token in each layer.

    The decoder inputs of a token are its embedding and those of the layers, [T, hidden + layers * P]. In checkpoints
    without them, P is 0.
    """

    @property
    def width(self) -> int:
        """P, the components of the embedding for one layer."""
        return int(self.decoder.config.hidden_size_per_layer_input or 0)

    def ids_by_layer(self, run: Run) -> torch.Tensor:
        """The tokens [T], on the CPU, whose embeddings the layers get for those of a run."""
        return torch.tensor(run.token_ids, dtype=torch.long)

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        return self.pack(super().embed(run, features), sent(self.ids_by_layer(run), self.decoder.device))

    def pack(self, embeds: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Decoder inputs [..., T, hidden + layers * P] of embeddings [..., T, hidden] and tokens [..., T]."""
        if not self.width:
            return embeds
        by_layer = self.decoder.module.get_per_layer_inputs(token_ids)
        return torch.cat([embeds, by_layer.flatten(-2)], dim=-1)

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        if not self.width:
            return embeds, {}
        first, by_layer = embeds.tensor_split([self.decoder.config.hidden_size], dim=2)
        return first, {"per_layer_inputs": by_layer.unflatten(2, (-1, self.width))}
