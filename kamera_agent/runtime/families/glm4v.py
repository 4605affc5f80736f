"""GLM-4.1V, 4.5V and 4.6V, and GLM-OCR."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from kamera_agent.runtime.families.mrope import MRope
from kamera_agent.runtime.families.patches import Grid


class Glm4V(MRope):
    """GLM-4.1V, 4.5V, 4.6V and GLM-OCR (arXiv 2507.01006).

    RoPE turns half of each head, in neighbouring pairs in dense models and in halves in models with experts. The frames
    of a clip are images, each followed by its time in seconds.
    """

    model_types = ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
    clips_are_images = True

    @property
    def marks(self) -> tuple[int, int]:
        return self.model.config.image_start_token_id, self.model.config.image_end_token_id

    def clip(self, grid: Grid, times: Sequence[Sequence[float]]) -> tuple[int, ...]:
        config = self.model.config
        step = self.framed(config.image_token_id, (1, *grid[1:]))
        steps = [(*step, *self.tokens.markup(self._second(seconds[0]))) for seconds in times]
        return (config.video_start_token_id, *chain(*steps), config.video_end_token_id)

    def _second(self, time: float) -> str:
        # Checkpoints of one model type differ in this; only their processors show which is which.
        exact = type(self.processors.image_processor).__name__.startswith("Glm46V")
        return f"{time:.1f} seconds" if exact else str(int(time))
