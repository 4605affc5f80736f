"""Ovis2: a table of visual words, which also embeds the markers around tiles."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from kamera_agent.chunk import Chunk
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.image_text import ImageText, rows_of
from kamera_agent.runtime.families.processors import Processors


class Ovis2(ImageText):
    """Ovis2 (arXiv 2405.20797)."""

    model_types = ("ovis2",)

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        if (tokenize := model.config.vision_config.tokenize_function) == "gumbel_argmax":
            raise UnsupportedModelError(
                f"tokenize_function={tokenize!r} draws visual words at random, so the same pixels are never the same "
                "chunk. Set it to 'softmax' or 'st_argmax'."
            )

    @cached_property
    def placeholder_ids(self) -> frozenset[int]:
        return frozenset({self.image_token_id, *self.model.config.visual_indicator_token_ids})

    def encoder_outputs(self, chunk: Chunk) -> Any:
        pixel_values = self.pixel_inputs([chunk])["pixel_values"]
        outputs = self.model.model.get_image_features(pixel_values, return_dict=True)
        token_ids = torch.tensor([token for token in chunk.token_ids if token in self.placeholder_ids])
        rows = outputs.pooler_output.new_empty(len(token_ids), outputs.pooler_output.shape[-1])
        rows[token_ids == self.image_token_id] = rows_of(outputs.pooler_output)
        for marker, row in zip(
            self.model.config.visual_indicator_token_ids, outputs.visual_indicator_features, strict=True
        ):
            rows[token_ids == marker] = row
        return rows
