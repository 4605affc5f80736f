"""Time to first token of an edited window: Kamera, a full re-prefill, a prefix cache, the bare new tokens.

    python -m benchmarks.window --json

A window of four 1280x720 screenshots (1,196 tokens each) and a question, on a Qwen2.5-VL of about 60 million
parameters with seeded random weights. Every round measures all ways, one after the other; medians over the rounds
are reported.

slide    a new screenshot comes, the oldest goes
reorder  the four change places
recall   the oldest was dropped a turn ago and comes back to its place
revisit  an agent goes round five pages it has seen before: the next one comes, the oldest goes

ours     the edit and generate() up to the first token, preprocessing and fingerprint included
full     preprocessing, vision encoder and forward pass of everything
prefix   forward pass of all behind the unchanged beginning, encoder outputs of known pixels cached
bare     forward pass of just the tokens that ours computes, over a DynamicCache of all others; encoder of a
         new screenshot included, its preprocessing not; mean of one run before ours and one after

In all four events the first page is another than before, so full and prefix have the same work: they are measured
once a round, on the window of the slide.

Between two measurements what Kamera remembers in the background is finished: that time is in remember_ms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from benchmarks.baselines import Figures, Pixels, Prompt, head_of, medians, timed_ms
from kamera_agent import Kamera, Reply
from kamera_agent.pocket.model import SMALL_SHAPE, build_model, build_processor

QUESTION = "What changed?"
NUM_KEPT, NUM_PAGES, SEED = 4, 5, 0
EVENTS = ("slide", "reorder", "recall", "revisit")
WAYS = ("ours", "bare", "prefix", "full", "remember")


def page(seed: int) -> Pixels:
    """[720, 1280, 3] uint8 noise in blocks; every seed another screenshot."""
    blocks = np.random.default_rng(seed).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(16, axis=0).repeat(16, axis=1))


class Trace:
    """A window that holds four pages when it answers."""

    def __init__(self, kamera: Kamera) -> None:
        self.window = kamera.window()
        self.pages: dict[str, Pixels] = {}

    def see(self, pixels: Pixels) -> None:
        """A page enters at the end; the window keeps the last four."""
        self.pages[self.window.add_image(pixels)] = pixels
        self.window.slide(NUM_KEPT)

    @property
    def ids(self) -> list[str]:
        return [span.id for span in self.window.spans if span.kind == "image"]

    def answer(self, edit: Callable[[], object]) -> tuple[float, Reply]:
        """Milliseconds from the edit to the first token. Question and reply are taken out again, so that
        every turn has the same content but for its pages."""
        edit_ms, _ = timed_ms(edit)
        reply = self.window.generate(QUESTION, max_new_tokens=1)
        for span in self.window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                self.window.drop(span.id)
        return edit_ms + reply.timings.first_token_ms, reply


class Bench:
    """Two windows of one Kamera, and the baselines over the same model."""

    def __init__(self) -> None:
        self.model, self.processor = build_model(seed=SEED), build_processor()
        self.kamera = Kamera(self.model, self.processor)
        self.fresh = (page(seed) for seed in itertools.count(NUM_PAGES))
        self.turns = itertools.cycle([page(seed) for seed in range(NUM_PAGES)])
        self.line, self.circle = Trace(self.kamera), Trace(self.kamera)
        for _ in range(NUM_KEPT):
            self.line.see(next(self.fresh))
        self.line.answer(_nothing)
        # Twice round: from then on every page comes back behind the same three.
        for _ in range(2 * NUM_PAGES):
            self.circle.see(next(self.turns))
            self.circle.answer(_nothing)
            self.kamera.flush()

    def round(self) -> dict[str, Figures]:
        """Every event once."""
        new, back = next(self.fresh), next(self.turns)
        line, circle = self.line, self.circle
        kept = [*line.pages.values()][1 - NUM_KEPT :]
        prompt = Prompt(self.model, self.processor, [*kept, new], QUESTION)
        full_ms, cache = timed_ms(prompt.full_prefill)
        shared = {"full": full_ms, "prefix": _prefix_ms(prompt, cache), "tokens_full": len(prompt)}
        figures = {"slide": self._measure(line, lambda: line.see(new), prompt, cache, num_new=1)}
        order = line.ids[::-1]
        figures["reorder"] = self._measure(line, lambda: line.window.reorder(order), prompt, cache, num_new=0)
        oldest, second = line.ids[:2]
        line.answer(lambda: line.window.drop(oldest))
        recall = partial(line.window.recall, oldest, at=second)
        figures["recall"] = self._measure(line, recall, prompt, cache, num_new=0)
        figures["revisit"] = self._measure(circle, lambda: circle.see(back), prompt, cache, num_new=0)
        return {event: shared | ms for event, ms in figures.items()}

    def _measure(
        self, trace: Trace, edit: Callable[[], object], prompt: Prompt, cache: DynamicCache, num_new: int
    ) -> Figures:
        """Our time to first token, and on both sides of it the bare forward pass of the same number of tokens."""
        before_ms = _bare_ms(prompt, cache, num_new)
        ours_ms, reply = trace.answer(edit)
        remember_ms, _ = timed_ms(self.kamera.flush)
        bare_ms = (before_ms + _bare_ms(prompt, cache, num_new)) / 2
        computed = reply.usage.tokens_computed
        assert computed == len(prompt) - prompt.tail_start(num_new), (computed, reply.plan)
        return {"ours": ours_ms, "bare": bare_ms, "remember": remember_ms, "tokens_computed": computed}


def _nothing() -> None:
    """The edit of a turn that has had its edits."""


def _prefix_ms(prompt: Prompt, cache: DynamicCache) -> float:
    """What a prefix cache keeps ends before the first page, which is another one than before."""
    known = [prompt.features(i) for i in range(NUM_KEPT - 1)]
    head = head_of(cache, prompt.first_image)
    return timed_ms(lambda: prompt.forward_tail(head, prompt.first_image, [*known, prompt.features(NUM_KEPT - 1)]))[0]


def _bare_ms(prompt: Prompt, cache: DynamicCache, num_new: int) -> float:
    new = range(NUM_KEPT - num_new, NUM_KEPT)
    patches = [prompt.patches([prompt.images[i]]) for i in new]
    start = prompt.tail_start(num_new)
    head = head_of(cache, start)

    def run() -> None:
        features = [prompt.features(i, values) for i, values in zip(new, patches, strict=True)]
        prompt.forward_tail(head, start, features)

    return timed_ms(run)[0]


def rounds(num_rounds: int) -> dict[str, list[Figures]]:
    """Figures of every event, round by round. The first round warms up and is left out."""
    bench = Bench()
    measured: dict[str, list[Figures]] = {event: [] for event in EVENTS}
    for index in range(num_rounds + 1):
        figures = bench.round()
        _say(index, figures)
        for event in EVENTS if index else ():
            measured[event].append(figures[event])
    bench.kamera.close()
    return measured


def _say(index: int, figures: dict[str, Figures]) -> None:
    for event, ms in figures.items():
        times = "  ".join(f"{way} {ms[way]:8.0f} ms" for way in WAYS)
        print(f"{f'round {index}' if index else 'warm-up':8} {event:8} {times}", flush=True)


def summary(measured: dict[str, list[Figures]]) -> dict[str, Any]:
    """Per event: medians of the times, and of the ratios within each round."""
    return {event: medians(figures, WAYS) for event, figures in measured.items()}


def conditions(num_rounds: int) -> dict[str, Any]:
    """What the figures were measured under."""
    return {
        "model": "Qwen2.5-VL class, seeded random weights",
        "shape": asdict(SMALL_SHAPE),
        "dtype": "float32",
        "device": "cpu",
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "rounds": num_rounds,
        "seed": SEED,
        "screenshot": "1280x720, 1196 tokens",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, besides the warm-up (default 5)")
    options = parser.parse_args()
    result = {**summary(rounds(options.rounds)), "conditions": conditions(options.rounds)}
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
