"""Events in windows of a Kamera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar, Unpack
from weakref import ref

import torch

from benchmarks.fidelity.bench import drawn
from benchmarks.fidelity.events import Indices, Script
from kamera_agent import Kamera, Window
from kamera_agent.config import SettingOptions
from kamera_agent.pocket.screen import SHOT_TIMES, Picture
from kamera_agent.runtime.encoder import Encoder
from kamera_agent.vision.frames import Frames
from kamera_agent.window.content import Content, FramesContent, ImageContent
from kamera_agent.window.plan import Plan

T = TypeVar("T")


class Heard(NamedTuple):
    """Next-token logits [vocab] after each question, in the same window.

    recomputed: share of the KV of all chunks that the turn computes again, in tokens times layers.
    stale: share of it in chunks that were computed after other chunks than those that are before them now.
    """

    logits: list[torch.Tensor]
    recomputed: float
    stale: float


class Live:
    """A Kamera that plays one event after another, each with an empty store.

    Everything is healed before an event, as far as the settings say, and nothing while it is asked about. Of all
    events, only slides are expected.
    """

    def __init__(self, model: str, encoder: Encoder | None = None, **settings: Unpack[SettingOptions]) -> None:
        """model: folder of a checkpoint. settings: those that are not the defaults.

        encoder: of the same model, so that pictures which it has encoded are not encoded again.
        """
        self._kamera = Kamera.from_pretrained(model, store=None, device="cpu", **settings)
        if encoder:
            self._kamera._engine.encoder = encoder

    def play(self, script: Script, pictures: Sequence[Picture], questions: Sequence[str]) -> list[Heard]:
        """What is heard in the window after an event: in the turn of the event, and once it has healed, if it heals."""
        contents = [_content(picture) for picture in pictures]
        window = self._lead_up(script, contents)
        heard = self._now_and_healed(partial(_ask, window, [contents[index] for index in script.after], questions))
        self._kamera.flush()
        self._kamera.store.delete([header.key for header in self._kamera.store.headers()])
        return heard

    def _lead_up(self, script: Script, contents: Sequence[Content]) -> Window:
        """Play what comes before an event; returns the window that the event is in."""
        window, shown = self._kamera.window(), ()
        for turn in script.before:
            self._prepare(window, shown, turn, contents)
            with self._answering():
                window.sync([contents[index] for index in turn])
                window.logits()
            shown = turn
        if script.anew:
            self._settle()
            return self._begin_anew()
        self._prepare(window, shown, script.after, contents)
        return window

    def _begin_anew(self) -> Window:
        return self._kamera.window()

    def _now_and_healed(self, look: Callable[[], T]) -> list[T]:
        """What is seen in the turn of an event, and once the window has healed, if it heals."""
        with self._answering():
            seen = [look()]
        if self._kamera.settings.heal != "never":
            self._settle()
            with self._answering():
                seen.append(look())
        return seen

    def _prepare(self, window: Window, shown: Indices, turn: Indices, contents: Sequence[Content]) -> None:
        """Heal a window that has shown something before its next turn, which it expects if that is a slide."""
        kept = tuple(index for index in turn if index in shown)
        slides = bool(kept) and kept != shown and kept == shown[-len(kept) :]
        window.expect([contents[index] for index in kept] if slides else None)
        self._settle()

    def _settle(self) -> None:
        self._kamera.flush()
        self._kamera.settle()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Keep healing out, from an edit to the last question about it."""
        answer = ref(self)
        self._kamera._engine.answers.add(answer)
        try:
            yield
        finally:
            self._kamera._engine.answers.discard(answer)


def _ask(window: Window, shown: Sequence[Content], questions: Sequence[str]) -> Heard:
    """Let a window show something and answer, and then ask: what it has computed by then serves every question."""
    window.sync(shown)
    recomputed, stale = _shares(window.generate(max_tokens=1).plan)
    window.sync(shown)
    return Heard([window.logits(question) for question in questions], recomputed, stale)


def _shares(plan: Plan) -> tuple[float, float]:
    """Shares of the KV of chunks that was computed again, and that was stale. All chunks are known."""
    rows = [row for row in plan.rows if row.kind in ("image", "frames")]
    num_tokens = sum(row.num_tokens for row in rows)
    recomputed = sum(row.num_computed for row in rows)
    stale = sum(row.num_tokens for row in rows if row.origin == "computed" or (row.stale and row.stale.of_chunks))
    return recomputed / num_tokens, stale / num_tokens


def _content(picture: Picture) -> Content:
    frames = drawn(picture)
    return ImageContent(frames[0]) if len(frames) == 1 else FramesContent(Frames(frames, SHOT_TIMES))
