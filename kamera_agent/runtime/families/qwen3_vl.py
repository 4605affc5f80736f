"""Qwen3-VL: clips as of Qwen3.5, and deepstack."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Run
from kamera_agent.runtime.families.image_text import rows_of
from kamera_agent.runtime.families.qwen3_5 import Qwen35


class Qwen3VL(Qwen35):
    """Qwen3-VL, dense and with experts (arXiv 2511.21631).

    Features of several layers of the encoder are added to the outputs of the first layers of the decoder (deepstack,
    arXiv 2406.04334). So the decoder inputs of a token are its embedding and those levels, [T, hidden * (1 + levels)],
    with zeros for text.
    """

    model_types = ("qwen3_vl", "qwen3_vl_moe")

    @property
    def num_levels(self) -> int:
        """Number of decoder layers that deepstack adds to."""
        return len(self.model.config.vision_config.deepstack_visual_indexes)

    def features(self, outputs: Any) -> torch.Tensor:
        levels = [rows_of(level) for level in outputs.deepstack_features]
        return torch.cat([super().features(outputs), *levels], dim=1)

    def embed(self, run: Run, features: torch.Tensor | None) -> torch.Tensor:
        hidden = self.decoder.config.hidden_size
        embeds = super().embed(run, None if features is None else features[:, :hidden])
        levels = embeds.new_zeros(len(embeds), self.num_levels * hidden)
        if features is not None:
            levels[self.placeholder_rows(run)] = features[:, hidden:].to(embeds.device)
        return torch.cat([embeds, levels], dim=1)

    def unpack(self, embeds: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        first, *levels = embeds.split(self.decoder.config.hidden_size, dim=2)
        # The levels of text are zeros, so adding them everywhere changes nothing.
        everywhere = torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
        return first, {
            "visual_pos_masks": everywhere,
            "deepstack_visual_embeds": [level.flatten(0, 1) for level in levels],
        }
