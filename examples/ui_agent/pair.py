"""Two arms that answer about the same windows, so that their times can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from examples.ui_agent.browser import SIZE
from examples.ui_agent.turn import Arm, Turn


class Pair:
    """An arm in which two arms answer every question, in an order that changes from step to step.

    So neither is always the first, and a machine that grows slower or faster does so for both.
    """

    def __init__(self, first: Arm, second: Arm) -> None:
        self._arms = (first, second)
        # The turns of the second arm.
        self.seconds: list[Turn] = []

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        """Have both arms answer; returns the turn of the first arm."""
        order = (0, 1) if len(self.seconds) % 2 == 0 else (1, 0)
        turns = {index: self._arms[index].answer(screens, question) for index in order}
        self.seconds.append(turns[1])
        return turns[0]


def warm_up(arm: Arm) -> None:
    """Pay the cost of first calls: windows of one to four screenshots of noise, which come, move and return."""
    a, b, c, d = map(_noise, range(4))
    for screens in ([a], [a, b, c], [b, c, d], [a, b, c, d]):
        arm.answer(screens, "Ready?")


def _noise(seed: int) -> bytes:
    shape = SIZE["height"], SIZE["width"], 3
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
