"""Qwen2.5-Omni: its thinker, which reads images and writes text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.mrope import MRope


class Qwen25Omni(MRope):
    """The thinker of Qwen2.5-Omni, which reads images and writes text (arXiv 2503.20215).

    From a checkpoint of the whole model (qwen2_5_omni) only the thinker is loaded. Its audio encoder is not used.
    """

    model_types = ("qwen2_5_omni", "qwen2_5_omni_thinker")
    auto_model: ClassVar[Any] = Qwen2_5OmniThinkerForConditionalGeneration

    def find_text_model(self) -> Any:
        if hasattr(self.model, "thinker"):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} also speaks, and only its text is served; pass model.thinker."
            )
        # Before transformers 5.24, the text model has no wrapper.
        return getattr(self.model.model, "language_model", self.model.model)

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return super().placeholder_ids | {self.model.config.audio_token_id}

    @property
    def rope_index(self) -> Callable[..., Any]:
        rule: Callable[..., Any] = self.model.get_rope_index
        return rule
