"""Time to first token of an edited window: Kamera, a full re-prefill, a prefix cache, the bare new tokens.

    python -m benchmarks.window --json

A window of four 1280x720 screenshots (1,196 tokens each) and a question, on a Qwen2.5-VL of about 60 million
parameters with seeded random weights. Every round goes through the four events and measures all ways on the same
content, one after the other; medians over the rounds are reported.

slide    a new screenshot comes, the oldest goes
reorder  the four change places
recall   the oldest was dropped a turn ago and comes back to its place
revisit  an agent goes round five pages it has seen before: the next one comes, the oldest goes

ours     the edit and generate() up to the first token, preprocessing and fingerprint included
full     preprocessing, vision encoder and forward pass of everything
prefix   forward pass of all behind the unchanged beginning, encoder outputs of known pixels cached
bare     forward pass of just the tokens that ours computes, over a DynamicCache of all others; encoder of a
         new screenshot included, its preprocessing not

Between two measurements what Kamera remembers in the background is finished: that time is in remember_ms.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from benchmarks.baselines import Pixels, Prompt, head_of, timed_ms
from kamera_agent import Kamera, Reply
from kamera_agent.pocket.model import SMALL, build_model, build_processor

QUESTION = "What changed?"
NUM_KEPT, NUM_PAGES, SEED = 4, 5, 0
EVENTS = ("slide", "reorder", "recall", "revisit")
Figures = dict[str, float]


def page(seed: int) -> Pixels:
    """[720, 1280, 3] uint8 noise in blocks; every seed another screenshot."""
    blocks = np.random.default_rng(seed).integers(0, 256, (45, 80, 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(16, axis=0).repeat(16, axis=1))


class Trace:
    """A window that always holds four pages when it answers, and the baselines over the same model."""

    def __init__(self, kamera: Kamera, model: Any, processor: Any) -> None:
        self.kamera, self.model, self.processor = kamera, model, processor
        self.window = kamera.window()
        self.pages: dict[str, Pixels] = {}

    def see(self, pixels: Pixels) -> None:
        """A page enters at the end; the window keeps the last four."""
        self.pages[self.window.add_image(pixels)] = pixels
        self.window.slide(NUM_KEPT)

    @property
    def ids(self) -> list[str]:
        return [span.id for span in self.window.spans if span.kind == "image"]

    def answer(self, edit: Callable[[], object] = lambda: None) -> tuple[float, Reply]:
        """Milliseconds from the edit to the first token. Question and reply are taken out again, so that
        every turn has the same content but for its pages."""
        edit_ms, _ = timed_ms(edit)
        reply = self.window.generate(QUESTION, max_new_tokens=1)
        for span in self.window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                self.window.drop(span.id)
        return edit_ms + reply.timings.first_token_ms, reply

    def measure(self, edit: Callable[[], object]) -> Figures:
        """All ways over the content that `edit` leaves."""
        ours_ms, reply = self.answer(edit)
        remember_ms, _ = timed_ms(self.kamera.flush)
        prompt = Prompt(self.model, self.processor, [self.pages[name] for name in self.ids], QUESTION)
        full_ms, cache = timed_ms(prompt.full_prefill)
        start = len(prompt) - reply.usage.tokens_computed
        return {
            "ours": ours_ms,
            "full": full_ms,
            "prefix": _prefix_ms(prompt, cache, reply.usage.encoder_calls),
            "bare": _bare_ms(prompt, cache, start, reply.usage.encoder_calls),
            "remember": remember_ms,
            "tokens_computed": reply.usage.tokens_computed,
            "tokens_full": len(prompt),
        }


def _prefix_ms(prompt: Prompt, cache: DynamicCache, num_new: int) -> float:
    """In all four events the first page is another than before: what a prefix cache keeps ends there."""
    known = [prompt.features(i) for i in range(len(prompt.images) - num_new)]
    head = head_of(cache, prompt.first_image)

    def run() -> None:
        new = [prompt.features(i) for i in range(len(known), len(prompt.images))]
        prompt.forward_tail(head, prompt.first_image, [*known, *new])

    return timed_ms(run)[0]


def _bare_ms(prompt: Prompt, cache: DynamicCache, start: int, num_new: int) -> float:
    new = range(len(prompt.images) - num_new, len(prompt.images))
    patches = [prompt.patches([prompt.images[i]]) for i in new]
    head = head_of(cache, start)

    def run() -> None:
        features = [prompt.features(i, values) for i, values in zip(new, patches, strict=True)]
        prompt.forward_tail(head, start, features)

    return timed_ms(run)[0]


def rounds(num_rounds: int) -> dict[str, list[Figures]]:
    """Figures of every event, round by round. The first round warms up and is left out."""
    model, processor = build_model(seed=SEED), build_processor()
    fresh = (page(seed) for seed in range(NUM_PAGES, 10**6))
    measured: dict[str, list[Figures]] = {event: [] for event in EVENTS}
    with Kamera(model, processor) as kamera:
        first, circle = Trace(kamera, model, processor), Trace(kamera, model, processor)
        for _ in range(NUM_KEPT):
            first.see(next(fresh))
        first.answer()
        turns = itertools.cycle(page(seed) for seed in range(NUM_PAGES))
        # Twice round: from then on every page comes back behind the same three.
        for _ in range(2 * NUM_PAGES):
            circle.see(next(turns))
            circle.answer()
            kamera.flush()
        for index in range(num_rounds + 1):
            figures = _round(first, circle, fresh, turns)
            _say(index, figures)
            for event in EVENTS if index else ():
                measured[event].append(figures[event])
    return measured


def _round(first: Trace, circle: Trace, fresh: Iterator[Pixels], turns: Iterator[Pixels]) -> dict[str, Figures]:
    new, back = next(fresh), next(turns)
    figures = {"slide": first.measure(lambda: first.see(new))}
    order = first.ids[::-1]
    figures["reorder"] = first.measure(lambda: first.window.reorder(order))
    oldest, second = first.ids[:2]
    first.answer(lambda: first.window.drop(oldest))
    figures["recall"] = first.measure(lambda: first.window.recall(oldest, at=second))
    figures["revisit"] = circle.measure(lambda: circle.see(back))
    return figures


def _say(index: int, figures: dict[str, Figures]) -> None:
    for event, ms in figures.items():
        times = "  ".join(f"{way} {ms[way]:8.0f} ms" for way in ("ours", "bare", "prefix", "full", "remember"))
        print(f"{f'round {index}' if index else 'warm-up':8} {event:8} {times}", flush=True)


def summary(measured: dict[str, list[Figures]]) -> dict[str, Any]:
    """Per event: medians of the times, and of the ratios within each round."""
    return {event: _medians(figures) for event, figures in measured.items()}


def _medians(figures: list[Figures]) -> dict[str, Any]:
    def median_ratio(upper: str, lower: str) -> float:
        return round(statistics.median(ms[upper] / ms[lower] for ms in figures), 3)

    return {
        "ttft_ratio_full": median_ratio("full", "ours"),
        "ttft_ratio_prefix": median_ratio("prefix", "ours"),
        "overhead": median_ratio("ours", "bare"),
        "tokens_computed": int(figures[0]["tokens_computed"]),
        "tokens_full": int(figures[0]["tokens_full"]),
        **{
            f"{way}_ms": round(statistics.median(ms[way] for ms in figures), 1)
            for way in ("ours", "full", "prefix", "bare", "remember")
        },
    }


def conditions(num_rounds: int) -> dict[str, Any]:
    """What the figures were measured under."""
    return {
        "model": "Qwen2.5-VL class, seeded random weights",
        "shape": asdict(SMALL),
        "dtype": "float32",
        "device": "cpu",
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
