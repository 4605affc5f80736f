"""The measurement of a turn: one question over one window, answered in three ways."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from kamera_agent import FramesContent, ImageContent, Kamera, Reply, TextContent, Window
from kamera_agent.cli.demo.media import draw, sketch
from kamera_agent.cli.demo.result import ORIGINS, ChunkResult, TurnResult, Way, order_of
from kamera_agent.cli.demo.trace import TASK, Turn
from kamera_agent.config import Fidelity
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import load
from kamera_agent.telemetry.drift import divergence
from kamera_agent.window.content import Content
from kamera_agent.window.plan import Plan

NAMESPACE = "kamera-demo"
ANSWER_TOKENS = 4


class Answer(NamedTuple):
    """A reply, the milliseconds from the edit to its first token, and those of the work after it.

    logits: [vocab], those that the first token was drawn from. remember_ms, heal_ms: storing new chunks, and healing.
    """

    reply: Reply
    logits: torch.Tensor
    first_token_ms: float
    remember_ms: float
    heal_ms: float


class _First:
    """A constraint that admits every token, and keeps the logits of the first."""

    def __init__(self) -> None:
        self.logits = torch.empty(0)

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        self.logits = self.logits if len(self.logits) else logits
        return logits

    def accept(self, token: int) -> None:
        """Do nothing: no token depends on another."""


class Full(NamedTuple):
    """The next-token logits [vocab] of a full prefill, and its milliseconds."""

    logits: torch.Tensor
    first_token_ms: float


class Meter:
    """One model in one process, used by Kamera, by a prefix cache that keeps encoder outputs, and directly.

    After every answer, new chunks are stored and the window is healed before the next way is measured: background work
    would slow it down, and two Kameras must not use one model at the same time. The order of the ways changes from turn
    to turn, because a machine may grow slower or faster meanwhile, and the first way finds other data in the caches of
    the processor.
    """

    def __init__(self, store: Path) -> None:
        self._checkpoint = load(str(WEIGHTS), device="cpu")
        self._pictures = sketch()
        self._media = {name: draw(picture) for name, picture in self._pictures.items()}
        self._kamera = Kamera(*self._checkpoint, store, namespace=NAMESPACE)
        self._prefix = Kamera(*self._checkpoint, fidelity="exact", heal="never")
        self._window, self._prefix_window = self._kamera.window(), self._prefix.window()
        # Never answers, so it has no KV and keeps nothing.
        self._full_window = self._kamera.window()

    @property
    def model(self) -> Any:
        """The model that is measured."""
        return self._checkpoint.model

    def warm_up(self) -> None:
        """Pay the cost of first calls, with noise of the trace's sizes, in windows and a store apart.

        The noise is computed, moved, and recalled from memory and from disk, in windows as long as the trace's.
        """
        noise = [_noise_like(self._media[name], seed) for seed, name in enumerate(("page1", "yard1") * 2)]
        with TemporaryDirectory() as folder:
            kinds: list[tuple[str | None, Fidelity]] = [(folder, "patched"), (folder, "patched"), (None, "exact")]
            for store, fidelity in kinds:
                with Kamera(*self._checkpoint, store, fidelity=fidelity, heal="never") as kamera:
                    window = kamera.window()
                    for contents in (noise, noise[::-1], [], noise):
                        _answer(kamera, window, contents, "Ready?")
                    _prefill(window, noise, "Ready?")

    def measure(self, turn: Turn, number: int, process: int) -> TurnResult:
        """Answer a turn. Times include the caches' fingerprints and plans, and the full prefill's preprocessing."""
        contents = [TextContent(TASK), *(self._media[name] for name in turn.window)]
        question = turn.question(self._pictures)
        answers: dict[Way, Answer] = {}
        for way in order_of(number):
            if way == "full":
                full = _prefill(self._full_window, contents, question.text)
            elif way == "prefix":
                answers[way] = _answer(self._prefix, self._prefix_window, contents, question.text)
            else:
                answers[way] = _answer(self._kamera, self._window, contents, question.text)
        kamera, prefix = answers["kamera"], answers["prefix"]
        plan, usage = kamera.reply.plan, kamera.reply.usage
        return TurnResult(
            number=number,
            process=process,
            event=turn.event,
            question=question.text,
            truth=question.answer,
            answers={
                "kamera": kamera.reply.text,
                "prefix": prefix.reply.text,
                "full": self._kamera.family.tokens.decode([int(full.logits.argmax())]),
                "blind": self._blind(turn, question.text),
            },
            chunks=_chunks(turn, plan),
            tokens={origin: plan.num_tokens(origin) for origin in ORIGINS},
            num_computed={
                "kamera": plan.num_computed,
                "prefix": prefix.reply.plan.num_computed,
                "full": plan.num_tokens(),
            },
            first_token_ms={
                "kamera": kamera.first_token_ms,
                "prefix": prefix.first_token_ms,
                "full": full.first_token_ms,
            },
            remember_ms=kamera.remember_ms,
            heal_ms=kamera.heal_ms,
            kl=_divergence(full.logits, kamera.logits),
            bytes_read=usage.bytes_read,
        )

    def close(self) -> None:
        """Close both Kameras."""
        self._kamera.close()
        self._prefix.close()

    def _blind(self, turn: Turn, question: str) -> str:
        """The answer over chunks that were each computed alone, then rotated to their positions and not patched."""
        with Kamera(*self._checkpoint, base="canonical", fidelity="blind", heal="never") as kamera:
            for name in turn.window:
                alone = kamera.window()
                alone.sync([self._media[name]])
                alone.logits()
                kamera.flush()
            window = kamera.window()
            window.sync([TextContent(TASK), *(self._media[name] for name in turn.window)])
            return window.generate(question, max_tokens=ANSWER_TOKENS).text


def _noise_like(content: ImageContent | FramesContent, seed: int) -> ImageContent | FramesContent:
    draw = np.random.default_rng(seed).integers
    if isinstance(content, ImageContent):
        return ImageContent(draw(0, 256, content.image.shape, dtype=np.uint8))
    return FramesContent(draw(0, 256, content.frames.shape, dtype=np.uint8), content.timestamps)


def _answer(kamera: Kamera, window: Window, contents: Sequence[Content], question: str) -> Answer:
    start = perf_counter()
    window.sync(contents)
    edit_ms = 1e3 * (perf_counter() - start)
    first = _First()
    reply = window.stream(question, constraint=first, max_tokens=ANSWER_TOKENS).finish()
    answered = perf_counter()
    kamera.flush()
    remembered = perf_counter()
    kamera.settle()
    times = 1e3 * (remembered - answered), 1e3 * (perf_counter() - remembered)
    return Answer(reply, first.logits, edit_ms + reply.timings.first_token_ms, *times)


def _divergence(full: torch.Tensor, ours: torch.Tensor) -> float:
    """The divergence over the tokens that can be drawn: no placeholder of a picture is."""
    drawn = ours.isfinite()
    return divergence(full[drawn], ours[drawn])


def _prefill(window: Window, contents: Sequence[Content], question: str) -> Full:
    """A plain forward pass over everything. window: gets the contents; their fingerprints are not part of the time."""
    window.sync(contents)
    start = perf_counter()
    logits = window.reference_logits(question)
    int(logits.argmax())  # waits for a GPU
    return Full(logits, 1e3 * (perf_counter() - start))


def _chunks(turn: Turn, plan: Plan) -> tuple[ChunkResult, ...]:
    rows = [row for row in plan.rows if row.kind in ("image", "frames")]
    return tuple(
        ChunkResult(name, row.num_tokens, row.origin, row.match, row.error)
        for name, row in zip(turn.window, rows, strict=True)
    )
