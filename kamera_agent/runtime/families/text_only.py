"""Decoders without eyes: a chunk is a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kamera_agent.chunk import Chunk, Run
from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels


class TextOnly(Family):
    """Text models: Llama, Qwen, Mistral, Phi, DeepSeek."""

    model_types = (
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "mistral",
        "ministral",
        "phi3",
        "deepseek_v2",
        "deepseek_v3",
    )
    auto_model = AutoModelForCausalLM
    has_eyes = False
    placeholder_ids = frozenset()

    @classmethod
    def load_processor(cls, model_id: str, revision: str | None) -> Any:
        return AutoTokenizer.from_pretrained(model_id, revision=revision)

    def find_decoder(self) -> Any:
        return self.model.model

    def image_chunk(self, pixels: Pixels, namespace: str) -> NoReturn:
        raise self._blind("image")

    def frames_chunk(self, frames: Frames, namespace: str) -> NoReturn:
        raise self._blind("clip")

    def _blind(self, what: str) -> InputError:
        return InputError(f"{type(self.model).__name__} reads text only and cannot see an {what}; use add_document.")

    def encode(self, chunk: Chunk) -> NoReturn:
        raise self._blind(chunk.kind)

    def reference_logits(self, runs: Sequence[Run]) -> torch.Tensor:
        token_ids = torch.tensor([[token for run in runs for token in run.token_ids]], device=self.model.device)
        logits: torch.Tensor = self.model(input_ids=token_ids, use_cache=False).logits[0, -1].float()
        return logits
