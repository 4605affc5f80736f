"""Qwen3.5 and models made of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from kamera_agent.runtime.families.mrope import MRope
from kamera_agent.runtime.families.patches import Grid


class Qwen35(MRope):
    """Qwen3.5 and later, dense and with experts, and models made of them, such as Holo3 and Fara 1.5.

    A clip has the time in seconds before each step of its grid. Three of four layers have a recurrent state.
    """

    model_types = ("qwen3_5", "qwen3_5_moe")

    def clip(self, grid: Grid, times: Sequence[Sequence[float]]) -> tuple[int, ...]:
        opens, closes = self.marks
        step = self.framed(self.model.config.video_token_id, (1, *grid[1:]))
        steps = [(*self.tokens.markup(f"<{(seconds[0] + seconds[-1]) / 2:.1f} seconds>"), *step) for seconds in times]
        return (opens, *chain(*steps), closes)
