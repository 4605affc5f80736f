"""LLaVA 1.5 and NeXT: a vision tower before any text model with MHA, GQA or MLA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kamera_agent.runtime.families.image_text import ImageText
from kamera_agent.runtime.families.pixtral import LineByLine
from kamera_agent.vision.image import Pixels


class Llava(LineByLine):
    """LLaVA 1.5 and NeXT (arXiv 2304.08485, 2310.03744), ViP-LLaVA (arXiv 2312.00784), and Pixtral (arXiv 2410.07073).

    The processor of NeXT writes a newline token after each row. A Pixtral tower has a processor of its own.
    """

    model_types = ("llava", "llava_next", "vipllava")

    @property
    def _has_lines(self) -> bool:
        return bool(self.model.config.vision_config.model_type == "pixtral")

    @property
    def image_options(self) -> Mapping[str, Any]:
        return super().image_options if self._has_lines else {}

    def write(self, pixels: Pixels) -> tuple[int, ...]:
        return super().write(pixels) if self._has_lines else ImageText.write(self, pixels)
