"""Gemma 3: bidirectional attention inside an image; sliding and full layers, each with its own RoPE."""

from __future__ import annotations

from typing import Any

import torch

from kamera_agent.chunk import Chunk, Run
from kamera_agent.runtime.families.image_text import ImageText


class Gemma3(ImageText):
    """Gemma 3 with eyes (arXiv 2503.19786).

    The blank lines that its processor puts around an image belong to the chunk. Where a whole prompt is tokenised at
    once, they may become one token with a neighbouring line end; here texts and chunks are tokenised separately.
    """

    model_types = ("gemma3",)

    def both_ways(self, run: Run) -> torch.Tensor | None:
        if not isinstance(run, Chunk):
            return None
        return torch.tensor(run.token_ids) == self.image_token_id

    def reference_inputs(self, token_ids: torch.Tensor) -> dict[str, Any]:
        return {"token_type_ids": (token_ids == self.image_token_id).long()}
