"""Gemma 4: layers of two shapes, shared KV in the small models, embeddings for each layer."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Chunk, Run
from kamera_agent.runtime.families.image_text import WrittenByRule
from kamera_agent.runtime.families.per_layer import PerLayer
from kamera_agent.runtime.families.text_only import TextOnly, capped
from kamera_agent.vision.image import Pixels


class Gemma4(PerLayer, WrittenByRule):
    """Gemma 4 with eyes.

    In the large models, the tokens of an image see each other in sliding layers.
    """

    model_types = ("gemma4",)

    def expand(self, pixels: Pixels) -> str:
        num_tokens = int(self.image_inputs([pixels])["num_soft_tokens_per_image"][0])
        config, text_of = self.model.config, self.processors.tokenizer.convert_ids_to_tokens
        opens, closes = text_of(config.boi_token_id), text_of(config.eoi_token_id)
        return f"{opens}{self.image_token * num_tokens}{closes}"

    def ids_by_layer(self, run: Run) -> torch.Tensor:
        return super().ids_by_layer(run).masked_fill(self.placeholders(run), self.decoder.config.pad_token_id)

    def both_ways(self, run: Run) -> torch.Tensor | None:
        if not isinstance(run, Chunk) or self.decoder.config.use_bidirectional_attention != "vision":
            return None
        return torch.tensor(run.token_ids) == self.image_token_id

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return capped(super().logits(hidden), self.decoder.config)

    def reference_inputs(self, token_ids: torch.Tensor) -> dict[str, Any]:
        return {"mm_token_type_ids": (token_ids == self.image_token_id).long()}


class Gemma4Text(PerLayer, TextOnly):
    """The text model of Gemma 4 alone."""

    model_types = ("gemma4_text",)
