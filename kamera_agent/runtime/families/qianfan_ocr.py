"""Qianfan-OCR: InternVL with a placeholder of its own in the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kamera_agent.runtime.families.image_text import ImageText


class QianfanOcr(ImageText):
    """Qianfan-OCR. An image is square tiles and a thumbnail."""

    model_types = ("qianfan_ocr",)

    @property
    def image_token(self) -> str:
        return str(self.processors.whole.image_placeholder_token)

    @property
    def image_options(self) -> Mapping[str, Any]:
        return {"crop_to_patches": True}
