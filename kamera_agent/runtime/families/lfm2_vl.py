"""LFM2-VL."""

from __future__ import annotations

from typing import Any

from kamera_agent.runtime.families.image_text import ImageText
from kamera_agent.runtime.families.processors import require_torchvision


class Lfm2VL(ImageText):
    """LFM2-VL (arXiv 2511.23404). Most of its layers are short convolutions."""

    model_types = ("lfm2_vl",)

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        require_torchvision(cls)
        return super().load_processor(model_id, revision)
