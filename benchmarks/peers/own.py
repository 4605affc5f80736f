"""Our own runtime, as a user gets it, but that nothing is healed beside the other arms."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from benchmarks.peers.trace import Step
from kamera_agent import ImageContent, Kamera


class Own:
    """One window of one Kamera."""

    def __init__(self, checkpoint: Path) -> None:
        self._kamera = Kamera.from_pretrained(checkpoint, None, "cpu", "float32", heal="never")
        self._window = self._kamera.window()

    def answer(self, step: Step) -> dict[str, float]:
        start = perf_counter()
        self._window.sync(map(ImageContent, step.screens))
        edited = perf_counter()
        reply = self._window.generate(step.question, max_tokens=1)
        ms = 1e3 * (edited - start) + reply.timings.first_token_ms
        return {"tokens": reply.plan.num_computed, "ms": ms}

    def rest(self) -> None:
        self._kamera.flush()


def start(checkpoint: Path, with_kamera: bool) -> Own:
    """The arm."""
    assert with_kamera
    return Own(checkpoint)
