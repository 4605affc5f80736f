"""LFM2-VL."""

from __future__ import annotations

from kamera_agent.runtime.families.image_text import NeedsTorchvision


class Lfm2VL(NeedsTorchvision):
    """LFM2-VL (arXiv 2511.23404). Most of its layers are short convolutions."""

    model_types = ("lfm2_vl",)
