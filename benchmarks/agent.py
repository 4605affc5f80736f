"""Thirty steps of a screen agent under keep-last-3: tokens computed and time to first token, by three methods.

    python -m benchmarks.agent --json [--steps 30]

The agent of examples/ui_agent works through a small shop and tasks of MiniWoB++ in Chromium, at 1280x720 (1,196
tokens per screenshot). Its windows are recorded once. Then all three methods answer every window and its question, step
by step, on a Qwen2.5-VL of about 60 million parameters with seeded random weights. The order of the methods changes
from step to step, and all of them are warmed up with the first steps.

ours     sync() and generate() up to the first token; includes fingerprint and preprocessing of new screenshots
prefix   forward pass of everything after the longest common beginning with an earlier window; encoder outputs of
         screenshots seen before are cached, preprocessing and encoder of new ones are included
full     preprocessing, vision encoder and forward pass of everything

new        a screenshot that was not seen before comes, and the oldest goes
revisit    the same with a page that looks as it did before
look back  a screenshot that had gone returns to its old place, beside the three

Tokens of a refreshed span count as computed by their share of the layers. Ratios are ratios of sums over all steps.
agree: share of steps in which the trained pocket model gives the same greedy answer over the window of ours and over a
full prefill, of the agree_steps steps whose question it can answer. agree_random: share of all steps in which the
random weights choose the same first token; their scores are nearly equal, so a small error changes the token.
Background work is finished between two measurements; its time is remember_ms.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache

from benchmarks.baselines import Pixels, Prompt, head_of, timed_ms
from benchmarks.command import parser_of, show
from benchmarks.window import SEED, conditions
from examples.ui_agent.cached import Cached
from examples.ui_agent.episode import KEEP_LAST, play
from examples.ui_agent.first_token import watch
from examples.ui_agent.plain import load_plain
from examples.ui_agent.turn import Turn
from kamera_agent import ImageContent, Kamera
from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.telemetry.drift import divergence

WAYS = ("ours", "prefix", "full")
EVENTS = ("new", "revisit", "look back")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """A window of PNG screenshots, oldest first, and a question about it. answer: None if it is not known."""

    screens: tuple[bytes, ...]
    question: str
    event: str
    answer: str | None


class Recorder:
    """An arm that records the windows and answers nothing."""

    def __init__(self) -> None:
        self.windows: list[tuple[tuple[bytes, ...], str]] = []

    def answer(self, screens: Sequence[bytes], question: str) -> Turn:
        self.windows.append((tuple(screens), question))
        return Turn("", {"computed": 0}, 0.0, torch.empty(0))


def record(num_steps: int) -> list[Step]:
    """The windows of the first steps of the agent."""
    recorder = Recorder()
    records = asyncio.run(play(recorder, num_steps))
    steps, seen = [], set[bytes]()
    for (screens, question), record in zip(recorder.windows, records, strict=True):
        event = "look back" if record.move.tool == "look_back" else "revisit" if screens[-1] in seen else "new"
        steps.append(Step(screens, question, event, record.move.answer))
        seen |= set(screens)
    return steps


class Bench:
    """One model, a window of Kamera over it, and the state of a prefix cache."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.kamera = Kamera(model, processor)
        self.window = self.kamera.window()
        self.features: dict[bytes, torch.Tensor] = {}
        self.caches: dict[tuple[bytes, ...], DynamicCache] = {}

    def measure(self, step: Step, number: int) -> Figures:
        """Figures of one step, by all methods. number: of the step; it sets the order of the methods."""
        pixels = [np.array(Image.open(BytesIO(screen)).convert("RGB")) for screen in step.screens]
        prompt = Prompt(self.model, self.processor, pixels, step.question)
        methods = {
            "ours": lambda: self._ours(pixels, step.question),
            "prefix": lambda: self._prefix(prompt, step),
            "full": lambda: self._full(prompt),
        }
        found: dict[str, Any] = {}
        first = number % len(WAYS)
        for way in WAYS[first:] + WAYS[:first]:
            found |= methods[way]()
        full, ours = found.pop("full_logits"), found.pop("ours_logits")
        # Now, because the prefix cache must not know this window yet.
        self.caches[step.screens] = found.pop("cache")
        return {**found, "agree": float(ours.argmax() == full.argmax()), "kl": divergence(full, ours)}

    def _full(self, prompt: Prompt) -> dict[str, Any]:
        with watch(self.model) as first:
            full_ms, cache = timed_ms(prompt.full_prefill)
        return {"full_ms": full_ms, "full_tokens": len(prompt), "full_logits": first.logits, "cache": cache}

    def _ours(self, pixels: Sequence[Pixels], question: str) -> dict[str, Any]:
        """Figures of Kamera. The sync drops the question and the reply of the step before."""
        with watch(self.model) as first:
            edit_ms, _ = timed_ms(lambda: self.window.sync(map(ImageContent, pixels)))
            reply = self.window.generate(question, max_tokens=1)
        # Before another method is measured: background work would slow it down.
        remember_ms, _ = timed_ms(self.kamera.flush)
        return {
            "ours_ms": edit_ms + reply.timings.first_token_ms,
            "ours_tokens": reply.plan.num_computed,
            "ours_logits": first.logits,
            "remember_ms": remember_ms,
        }

    def _prefix(self, prompt: Prompt, step: Step) -> Figures:
        longest = max(self.caches, key=lambda earlier: _num_common(earlier, step.screens), default=())
        known = _num_common(longest, step.screens)
        # The tokens before the first screenshot are the same in all windows.
        start = prompt.tail_start(len(step.screens) - known) if self.caches else 0
        head = head_of(self.caches.get(longest, DynamicCache()), start)

        def run() -> None:
            for index, screen in enumerate(step.screens):
                if screen not in self.features:
                    self.features[screen] = prompt.features(index)
            prompt.forward_tail(head, start, [self.features[screen] for screen in step.screens[known:]])

        return {"prefix_ms": timed_ms(run)[0], "prefix_tokens": len(prompt) - start}


def _num_common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Number of screenshots at the beginning that two windows have in common."""
    num = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        num += 1
    return num


def run(steps: Sequence[Step], model: Any, processor: Any) -> list[Figures]:
    """Figures of every step."""
    # The first pass of each kind is slower than the others: new pages, one that moves, and one that comes back.
    warm_up = Bench(model, processor)
    for number, step in enumerate((*steps[:4], steps[0])):
        warm_up.measure(step, number)
    warm_up.kamera.close()
    bench = Bench(model, processor)
    measured = []
    for number, step in enumerate(steps, start=1):
        figures = bench.measure(step, number)
        measured.append(figures)
        ways = "  ".join(f"{way} {figures[f'{way}_tokens']:5.0f} {figures[f'{way}_ms']:7.0f} ms" for way in WAYS)
        same = "same" if figures["agree"] else "other"
        print(f"{number:3} {step.event:9} {ways}  {same} token, KL {figures['kl']:.1e}", flush=True)
    bench.kamera.close()
    return measured


def agreement(steps: Sequence[Step]) -> dict[str, float | None]:
    """Share of the questions with a known answer to which the trained model gives the same answer either way."""
    with Kamera.pocket() as kamera:
        plain, cached = load_plain(), Cached(kamera)
        answers = [(step, cached.answer(step.screens, step.question).answer) for step in steps]
        same = [plain.answer(step.screens, step.question).answer == ours for step, ours in answers if step.answer]
    return {"agree": round(statistics.mean(same), 3) if same else None, "agree_steps": len(same)}


def summary(steps: Sequence[Step], measured: Sequence[Figures]) -> dict[str, Any]:
    """Sums and their ratios, over all steps and by event."""
    by_event = {event: [f for s, f in zip(steps, measured, strict=True) if s.event == event] for event in EVENTS}
    return {
        **_ratios(measured),
        "agree_random": round(statistics.mean(figures["agree"] for figures in measured), 3),
        "kl_median": round(statistics.median(figures["kl"] for figures in measured), 6),
        "remember_ms": round(sum(figures["remember_ms"] for figures in measured)),
        "events": {event: {"steps": len(some), **_ratios(some)} for event, some in by_event.items() if some},
    }


def _ratios(measured: Sequence[Figures]) -> dict[str, Any]:
    sums = {key: sum(f[key] for f in measured) for way in WAYS for key in (f"{way}_tokens", f"{way}_ms")}
    return {
        "tokens_ratio_prefix": round(sums["prefix_tokens"] / sums["ours_tokens"], 3),
        "tokens_ratio_full": round(sums["full_tokens"] / sums["ours_tokens"], 3),
        "ttft_ratio_prefix": round(sums["prefix_ms"] / sums["ours_ms"], 3),
        "ttft_ratio_full": round(sums["full_ms"] / sums["ours_ms"], 3),
        **{key: round(value) for key, value in sums.items()},
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=30, help="steps of the agent (default 30)")
    options = parser.parse_args()
    steps = record(options.steps)
    measured = run(steps, build_model(seed=SEED), build_processor())
    trace = {"steps": len(steps), "keep_last": KEEP_LAST, "trace": "examples/ui_agent: shop and MiniWoB++"}
    result = {**summary(steps, measured), **agreement(steps), "conditions": conditions(1) | trace}
    show(result, options.json)


if __name__ == "__main__":
    main()
