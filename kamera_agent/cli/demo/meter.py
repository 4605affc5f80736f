"""The measurement of a turn: one question over one window, answered in three ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from kamera_agent import FramesContent, ImageContent, Kamera, Reply, TextContent, Window
from kamera_agent.cli.demo.media import draw, sketch
from kamera_agent.cli.demo.result import ORIGINS, ChunkResult, TurnResult
from kamera_agent.cli.demo.trace import TASK, Turn
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import load
from kamera_agent.telemetry.drift import divergence
from kamera_agent.window.content import Content
from kamera_agent.window.plan import Plan

NAMESPACE = "kamera-demo"
ANSWER_TOKENS = 4


class Answer(NamedTuple):
    """A reply, the milliseconds from the edit to its first token, and the milliseconds of remembering afterwards."""

    reply: Reply
    first_token_ms: float
    remember_ms: float


class Meter:
    """One model in one process, used by Kamera, by a prefix cache that keeps encoder outputs, and directly.

    Every answer is flushed before the next way is measured: background work would slow it down, and two Kameras
    must not use one model at the same time.
    """

    def __init__(self, store: Path) -> None:
        self._checkpoint = load(str(WEIGHTS), device="cpu")
        self._pictures = sketch()
        self._media = {name: draw(picture) for name, picture in self._pictures.items()}
        self._kamera = Kamera(*self._checkpoint, store, namespace=NAMESPACE)
        self._prefix = Kamera(*self._checkpoint, fidelity="exact")
        self._window, self._prefix_window = self._kamera.window(), self._prefix.window()

    @property
    def model(self) -> Any:
        """The model that is measured."""
        return self._checkpoint.model

    def warm_up(self) -> None:
        """Pay the cost of first calls, with noise of the trace's sizes, in a window and a store apart."""
        noise = [_noise_like(self._media[name]) for name in ("page1", "yard1")]
        with Kamera(*self._checkpoint) as kamera:
            window = kamera.window()
            for contents in (noise, [], noise):
                _answer(kamera, window, contents, "Ready?")
            window.reference_logits()

    def measure(self, turn: Turn, number: int, process: int) -> TurnResult:
        """Answer a turn. Times include the caches' fingerprints and plans, and the full prefill's preprocessing."""
        contents = [TextContent(TASK), *(self._media[name] for name in turn.window)]
        question = turn.question(self._pictures)
        kamera = _answer(self._kamera, self._window, contents, question.text)
        prefix = _answer(self._prefix, self._prefix_window, contents, question.text)
        full_ms, full, kl = self._full(kamera.reply)
        plan = kamera.reply.plan
        return TurnResult(
            number=number,
            process=process,
            event=turn.event,
            question=question.text,
            truth=question.answer,
            answers={
                "kamera": kamera.reply.text,
                "prefix": prefix.reply.text,
                "full": full,
                "blind": self._blind(turn, question.text),
            },
            chunks=_chunks(turn, plan),
            tokens={origin: plan.num_tokens(origin) for origin in ORIGINS},
            num_computed={
                "kamera": plan.num_tokens("computed"),
                "prefix": prefix.reply.usage.tokens_computed,
                "full": plan.num_tokens(),
            },
            first_token_ms={
                "kamera": kamera.first_token_ms,
                "prefix": prefix.first_token_ms,
                "full": full_ms,
            },
            remember_ms=kamera.remember_ms,
            kl=kl,
            bytes_read=kamera.reply.usage.bytes_read,
        )

    def close(self) -> None:
        """Close both Kameras."""
        self._kamera.close()
        self._prefix.close()

    def _blind(self, turn: Turn, question: str) -> str:
        """The answer over chunks that were each computed alone, then rotated to their positions and not patched."""
        with Kamera(*self._checkpoint, fidelity="blind") as kamera:
            for name in turn.window:
                alone = kamera.window()
                alone.sync([self._media[name]])
                alone.logits()
                kamera.flush()
            window = kamera.window()
            window.sync([TextContent(TASK), *(self._media[name] for name in turn.window)])
            return window.generate(question, max_tokens=ANSWER_TOKENS).text

    def _full(self, reply: Reply) -> tuple[float, str, float]:
        """Milliseconds of a full prefill of the prompt, its first word, and the divergence of Kamera from it."""
        if reply.span_id:
            self._window.drop(reply.span_id)
        start = perf_counter()
        full = self._window.reference_logits()
        full_ms = 1e3 * (perf_counter() - start)
        # The KV of the prompt is still in the pool, so only the opening of the reply's turn runs again.
        return full_ms, self._kamera.family.tokens.decode([int(full.argmax())]), divergence(full, self._window.logits())


def _noise_like(content: ImageContent | FramesContent) -> ImageContent | FramesContent:
    draw = np.random.default_rng(0).integers
    if isinstance(content, ImageContent):
        return ImageContent(draw(0, 256, content.image.shape, dtype=np.uint8))
    return FramesContent(draw(0, 256, content.frames.shape, dtype=np.uint8), content.timestamps)


def _answer(kamera: Kamera, window: Window, contents: Sequence[Content], question: str) -> Answer:
    start = perf_counter()
    window.sync(contents)
    edit_ms = 1e3 * (perf_counter() - start)
    reply = window.generate(question, max_tokens=ANSWER_TOKENS)
    start = perf_counter()
    kamera.flush()
    return Answer(reply, edit_ms + reply.timings.first_token_ms, 1e3 * (perf_counter() - start))


def _chunks(turn: Turn, plan: Plan) -> tuple[ChunkResult, ...]:
    rows = [row for row in plan.rows if row.kind in ("image", "frames")]
    return tuple(
        ChunkResult(name, row.num_tokens, row.origin, row.match, row.error)
        for name, row in zip(turn.window, rows, strict=True)
    )
