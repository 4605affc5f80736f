"""PaddleOCR-VL."""

from __future__ import annotations

from collections.abc import Sequence

from kamera_agent.chunk import Chunk
from kamera_agent.runtime.families.mrope import MRope
from kamera_agent.runtime.families.patches import Grid


class PaddleOcrVL(MRope):
    """PaddleOCR-VL (arXiv 2510.14528). It has no format for clips, so frames are written as images in a row."""

    model_types = ("paddleocr_vl",)
    clips_are_images = True

    def tiles(self, chunk: Chunk) -> None:
        # Its processor writes patches row by row, so those of a tile do not follow each other.
        return None

    def clip(self, grid: Grid, times: Sequence[Sequence[float]]) -> tuple[int, ...]:
        return self.framed(self.model.config.image_token_id, (1, *grid[1:])) * len(times)
