"""Aya Vision and Command A Vision: tiles; their text model turns keys in the sliding layers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kamera_agent.runtime.families.image_text import ImageText, NeedsTorchvision


class AyaVision(ImageText):
    """Aya Vision (arXiv 2505.08751)."""

    model_types = ("aya_vision",)

    @property
    def image_options(self) -> Mapping[str, Any]:
        return {"crop_to_patches": True}


class CommandAVision(NeedsTorchvision):
    """Command A Vision."""

    model_types = ("cohere2_vision",)
