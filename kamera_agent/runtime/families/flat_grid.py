"""Images of any size, as grids of patches, written as tokens at consecutive positions."""

from __future__ import annotations

from typing import ClassVar

import torch

from kamera_agent.runtime.families.image_text import WrittenByRule
from kamera_agent.vision.image import Pixels


class FlatGrid(WrittenByRule):
    """EXAONE 4.5, LFM3-VL, and VideoLLaMA 3 (arXiv 2501.13106). A clip is its frames as images in a row.

    A square of patches is one token, as in Qwen-VL, but a token has one position.
    """

    model_types: ClassVar[tuple[str, ...]] = ("exaone4_5", "lfm3_vl", "video_llama_3")

    def expand(self, pixels: Pixels) -> str:
        num_patches = int(self.image_inputs([pixels])["image_grid_thw"][0].prod())
        return self.image_token * (num_patches // int(self.processors.image_processor.merge_size) ** 2)


class HyperClovaX(FlatGrid):
    """HyperCLOVA X with eyes, such as SEED Think 32B. A clip is its frames as images in a row."""

    model_types = ("hyperclovax_vision_v2",)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden) * float(self.decoder.config.logits_scaling)
