"""Answers while the system calls of the store fail: they are what they are without a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.torture.faults import Calls, Fault, main
from benchmarks.torture.figures import Figures
from kamera_agent import Kamera
from kamera_agent.pocket.model import Shape, build_model, build_processor

NUM_IMAGES, NUM_TOKENS = 3, 4
SHAPE = Shape(
    hidden=64,
    intermediate=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    sections=(2, 3, 3),
    vision_depth=1,
    vision_hidden=32,
    vision_heads=2,
    # Larger than trained weights, so that what is before a token changes the answer.
    initializer_range=0.15,
)


class AnswerSubject:
    """A model that answers about pictures, twice: with new pictures, and with pictures that the store holds."""

    phases = ("opening", "use", "closing")

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self._folder = folder
        self._model, self._processor = build_model(SHAPE), build_processor()
        with self._open(None) as kamera:
            self._expected = answers(kamera)

    def meet(self, fault: Fault, calls: Calls) -> Figures:
        with calls.failing(fault, "opening"):
            kamera = self._open(self._folder)
        with calls.failing(fault, "use"):
            failed = answers(kamera) != self._expected
            kamera.flush()
            failed |= answers(kamera) != self._expected
        with calls.failing(fault, "closing"):
            kamera.close()
        return Figures(failed_answers=failed)

    def look_back(self, fault: Fault) -> Figures:
        """The store takes chunks again."""
        with self._open(self._folder) as kamera:
            failed = answers(kamera) != self._expected
            kamera.flush()
            return Figures(failed_answers=failed, unwritable=kamera.store.stats().num_records < NUM_IMAGES)

    def _open(self, folder: Path | None) -> Kamera:
        return Kamera(self._model, self._processor, folder, fidelity="exact")


def answers(kamera: Kamera) -> list[Any]:
    window = kamera.window()
    for seed in range(NUM_IMAGES):
        blocks = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
        window.add_image(blocks.repeat(14, axis=0).repeat(14, axis=1))
    return [window.generate("what?", max_tokens=NUM_TOKENS).text for _ in range(2)]


if __name__ == "__main__":
    main(AnswerSubject)
