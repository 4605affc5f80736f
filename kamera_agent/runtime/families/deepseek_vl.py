"""DeepSeek-VL: a fixed number of tokens per image, MHA."""

from __future__ import annotations

from kamera_agent.runtime.families.image_text import ImageText


class DeepseekVL(ImageText):
    """DeepSeek-VL 1.3B and, with a second tower of high resolution, 7B (arXiv 2403.05525)."""

    model_types = ("deepseek_vl", "deepseek_vl_hybrid")
