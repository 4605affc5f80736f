"""Events in windows of a Kamera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch

from benchmarks.fidelity.bench import drawn
from benchmarks.fidelity.events import Script
from kamera_agent import Kamera
from kamera_agent.config import SettingOptions
from kamera_agent.pocket.screen import SHOT_TIMES, Picture
from kamera_agent.vision.frames import Frames
from kamera_agent.window.content import Content, FramesContent, ImageContent
from kamera_agent.window.plan import Plan


class Heard(NamedTuple):
    """Next-token logits [vocab] after a question.

    recomputed: share of the tokens of chunks that the turn of the event computes again. stale: share of them in
    chunks whose KV is not what a full prefill gives.
    """

    logits: torch.Tensor
    recomputed: float
    stale: float


class Live:
    """A Kamera that plays one event after another, each with an empty store."""

    def __init__(self, model: str, **settings: Unpack[SettingOptions]) -> None:
        """model: folder of a checkpoint. settings: those that are not the defaults."""
        self._kamera = Kamera.from_pretrained(model, store=None, device="cpu", **settings)

    def play(self, script: Script, pictures: Sequence[Picture], questions: Sequence[str]) -> list[Heard]:
        """What is heard after each question in the window after the event. The first question is one turn with it."""
        contents = [_content(picture) for picture in pictures]
        window = self._kamera.window()
        for turn in script.before:
            window.sync([contents[index] for index in turn])
            window.logits()
            self._kamera.flush()
        if script.anew:
            window = self._kamera.window()
        after = [contents[index] for index in script.after]
        recomputed, stale = _shares(window.plan(after))
        window.sync(after)
        heard = [Heard(window.logits(question), recomputed, stale) for question in questions]
        self._kamera.flush()
        self._kamera.store.delete([header.key for header in self._kamera.store.headers()])
        return heard


def _content(picture: Picture) -> Content:
    frames = drawn(picture)
    return ImageContent(frames[0]) if len(frames) == 1 else FramesContent(Frames(frames, SHOT_TIMES))


def _shares(plan: Plan) -> tuple[float, float]:
    """Shares of the tokens of chunks that are computed, and that are not exact without being computed."""
    rows = [row for row in plan.rows if row.kind in ("image", "frames")]
    num_tokens = sum(row.num_tokens for row in rows)
    computed = sum(row.num_tokens for row in rows if row.origin == "computed")
    stale = sum(row.num_tokens for row in rows if row.origin == "computed" or not row.exact)
    return computed / num_tokens, stale / num_tokens
