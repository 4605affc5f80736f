"""The measurement of a turn: one question over one window, answered in several ways."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from kamera_agent import ImageContent, Kamera, Reply, TextContent, Window
from kamera_agent.cli.demo.media import draw, sketch
from kamera_agent.cli.demo.result import ORIGINS, ChunkResult, TurnResult, Way, order_of
from kamera_agent.cli.demo.scale import Scale
from kamera_agent.cli.demo.trace import TASK, Turn, question_of
from kamera_agent.config import Fidelity
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import Checkpoint, load
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

    def __init__(self, scale: Scale, store: Path) -> None:
        self._scale = scale
        self._checkpoint = (
            load(str(WEIGHTS), device="cpu") if scale.is_trained else Checkpoint(build_model(), build_processor())
        )
        self._pictures = sketch(scale.columns, scale.rows)
        self._media = {name: draw(picture) for name, picture in self._pictures.items()}
        self._kamera = Kamera(*self._checkpoint, store, namespace=NAMESPACE)
        self._prefix = Kamera(*self._checkpoint, fidelity="exact", heal="never")
        self._blind = Kamera(*self._checkpoint, base="canonical", fidelity="blind", heal="never")
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
        noise = [_noise_like(self._media["yard1"], seed) for seed in range(self._scale.in_sight)]
        with TemporaryDirectory() as folder:
            kinds: list[tuple[str | None, Fidelity]] = [(folder, "patched"), (folder, "patched"), (None, "exact")]
            for store, fidelity in kinds:
                with Kamera(*self._checkpoint, store, fidelity=fidelity, heal="never") as kamera:
                    window = kamera.window()
                    for contents in (noise, noise[::-1], [], noise):
                        _answer(kamera, window, contents, "Ready?", contents[1:])
            _prefill(self._full_window, noise, "Ready?")

    def enter(self, turn: Turn) -> None:
        """Give both windows the pictures of a turn, without measuring it."""
        contents = self._contents(turn.window)
        _answer(self._kamera, self._window, contents, "Ready?", self._expected(contents))
        _answer(self._prefix, self._prefix_window, contents, "Ready?", [])

    def measure(self, turn: Turn, number: int, process: int, *, full: bool) -> TurnResult:
        """Answer a turn. Times include the caches' fingerprints and plans, and the full prefill's preprocessing.

        full: whether a full prefill is measured as well.
        """
        contents = self._contents(turn.window)
        question = question_of(turn, number, self._pictures)
        answers: dict[Way, Answer] = {}
        prefill: Full | None = None
        for way in order_of(number):
            if way == "kamera":
                expected = self._expected(contents)
                answers[way] = _answer(self._kamera, self._window, contents, question.text, expected)
            elif way == "prefix":
                answers[way] = _answer(self._prefix, self._prefix_window, contents, question.text, [])
            elif full:
                prefill = _prefill(self._full_window, contents, question.text)
        kamera, prefix = answers["kamera"], answers["prefix"]
        plan, usage = kamera.reply.plan, kamera.reply.usage
        times: dict[Way, float] = {way: answer.first_token_ms for way, answer in answers.items()}
        texts: dict[str, str] = {way: answer.reply.text for way, answer in answers.items()}
        if prefill:
            times["full"] = prefill.first_token_ms
            texts["full"] = self._kamera.family.tokens.decode([int(prefill.logits.argmax())])
        if self._scale.is_trained:
            texts["blind"] = self._answer_blind(turn, question.text)
        return TurnResult(
            number=number,
            process=process,
            event=turn.event,
            question=question.text,
            truth=question.answer if self._scale.is_trained else "",
            answers=texts,
            chunks=_chunks(turn, plan),
            tokens={origin: plan.num_tokens(origin) for origin in ORIGINS},
            num_computed={
                "kamera": plan.num_computed,
                "prefix": prefix.reply.plan.num_computed,
                "full": plan.num_tokens(),
            },
            first_token_ms=times,
            remember_ms=kamera.remember_ms,
            heal_ms=kamera.heal_ms,
            kl=_divergence(prefill.logits, kamera.logits) if prefill else None,
            bytes_read=usage.bytes_read,
        )

    def close(self) -> None:
        """Close all Kameras."""
        for kamera in (self._kamera, self._prefix, self._blind):
            kamera.close()

    def _contents(self, names: Iterable[str]) -> list[Content]:
        return [TextContent(TASK), *(self._media[name] for name in names)]

    def _expected(self, contents: Sequence[Content]) -> Sequence[Content]:
        """What an agent that keeps the last pictures knows of its next window: the oldest will have gone."""
        task, *shown = contents
        return [task, *shown[len(shown) >= self._scale.in_sight :]]

    def _answer_blind(self, turn: Turn, question: str) -> str:
        """The answer over chunks that were each computed alone, then rotated to their positions and not patched."""
        for name in turn.window:
            alone = self._blind.window()
            alone.sync([self._media[name]])
            alone.logits()
        self._blind.flush()
        window = self._blind.window()
        window.sync(self._contents(turn.window))
        return window.generate(question, max_tokens=ANSWER_TOKENS).text


def _noise_like(content: ImageContent, seed: int) -> ImageContent:
    return ImageContent(np.random.default_rng(seed).integers(0, 256, content.image.shape, dtype=np.uint8))


def _answer(
    kamera: Kamera, window: Window, contents: Sequence[Content], question: str, expected: Sequence[Content]
) -> Answer:
    """expected: what the window is expected to hold next, for which it is healed after the answer."""
    start = perf_counter()
    window.sync(contents)
    edit_ms = 1e3 * (perf_counter() - start)
    first = _First()
    reply = window.stream(question, constraint=first, max_tokens=ANSWER_TOKENS).finish()
    answered = perf_counter()
    kamera.flush()
    remembered = perf_counter()
    window.expect(expected)
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
    rows = [row for row in plan.rows if row.kind == "image"]
    return tuple(
        ChunkResult(name, row.num_tokens, row.origin, row.match, row.error)
        for name, row in zip(turn.window, rows, strict=True)
    )
