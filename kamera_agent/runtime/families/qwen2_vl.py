"""Qwen2-VL and Qwen2.5-VL."""

from __future__ import annotations

from kamera_agent.runtime.families.mrope import MRope


class Qwen2VL(MRope):
    """Qwen2-VL, Qwen2.5-VL and models made of them, such as UI-TARS (arXiv 2409.12191, 2502.13923)."""

    model_types = ("qwen2_vl", "qwen2_5_vl")
