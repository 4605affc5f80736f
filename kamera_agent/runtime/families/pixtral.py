"""The Pixtral tower (arXiv 2410.07073): images of any size, written line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kamera_agent.runtime.families.image_text import WrittenByRule
from kamera_agent.vision.image import Pixels

BREAK, END = "[IMG_BREAK]", "[IMG_END]"


class LineByLine(WrittenByRule):
    """Writes one token per patch, or per square of patches, and one after each line."""

    @property
    def side(self) -> int:
        """Number of pixels along the side of the square of one token."""
        config = self.model.config
        return int(config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1))

    @property
    def image_options(self) -> Mapping[str, Any]:
        return {"patch_size": {"height": self.side, "width": self.side}}

    def expand(self, pixels: Pixels) -> str:
        height, width = (int(size) // self.side for size in self.image_inputs([pixels])["image_sizes"][0])
        return BREAK.join([self.image_token * width] * height) + END


class Mistral3(LineByLine):
    """Mistral Small 3.1 and later, Ministral 3."""

    model_types = ("mistral3",)

    def expand(self, pixels: Pixels) -> str:
        text = super().expand(pixels)
        # Its encoder drops the axis of tokens where there is only one.
        if text == self.image_token + END:
            raise ValueError(f"the encoder needs more than {self.side} pixels in one direction")
        return text


class LightOnOcr(LineByLine):
    """LightOnOCR. Its lines end without a token."""

    model_types = ("lighton_ocr",)

    def expand(self, pixels: Pixels) -> str:
        return super().expand(pixels).replace(BREAK, "").removesuffix(END)
