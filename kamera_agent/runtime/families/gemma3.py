"""Gemma 3: bidirectional inside an image, sliding and full layers with a RoPE of their own."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Chunk, Run
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.image_text import ImageText
from kamera_agent.runtime.families.processors import Processors


class Gemma3(ImageText):
    """Gemma 3 with eyes (arXiv 2503.19786).

    The blank lines that its processor puts around an image belong to the chunk. The tokenizer joins them with a line
    end before or behind them where the whole prompt is written at once; here texts and chunks are tokenised alone.
    """

    model_types = ("gemma3",)

    def __init__(self, model: Any, processors: Processors) -> None:
        super().__init__(model, processors)
        if self.decoder.config.use_bidirectional_attention:
            raise UnsupportedModelError(
                "use_bidirectional_attention is set: every token sees what follows it, so no chunk can be computed "
                "before the whole window is known. Use a checkpoint that generates text."
            )

    def both_ways(self, run: Run) -> torch.Tensor | None:
        if not isinstance(run, Chunk):
            return None
        return torch.tensor(run.token_ids) == self.image_token_id

    def reference_inputs(self, token_ids: torch.Tensor) -> dict[str, Any]:
        return {"token_type_ids": (token_ids == self.image_token_id).long()}
