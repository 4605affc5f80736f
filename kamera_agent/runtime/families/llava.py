"""LLaVA 1.5, NeXT and OneVision: a vision tower before whatever text model, MHA or GQA or MLA."""

from __future__ import annotations

from kamera_agent.runtime.families.image_text import ImageText


class Llava(ImageText):
    """LLaVA 1.5, NeXT and OneVision (arXiv 2304.08485, 2310.03744, 2408.03326).

    Row-newline tokens of the latter are among what the processor writes.
    """

    model_types = ("llava", "llava_next", "llava_onevision")
