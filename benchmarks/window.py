"""Time to first token of an edited window: Kamera, a full re-prefill, a prefix cache, the bare new tokens.

    python -m benchmarks.window --json

A window of four 1280x720 screenshots (1,196 tokens each) and a question, on a Qwen2.5-VL of about 60 million
parameters with seeded random weights. Every round measures all methods, one after the other. The figures are medians
over the rounds, after a round that warms up.

slide    a new screenshot comes, and the oldest goes
reorder  the four change places
recall   the oldest was dropped in the turn before and returns to its place
revisit  an agent goes round five pages: one that it has seen before comes, and the oldest goes

ours     the edit and generate() up to the first token, with preprocessing and fingerprint
full     preprocessing, vision encoder and forward pass of everything
prefix   forward pass of everything after the unchanged beginning, with cached encoder outputs of known screenshots
bare     forward pass of just the tokens that ours computes, over a DynamicCache of all others, with the encoder of a
         new screenshot but without its preprocessing; mean of one run before ours and one after it

All four events change the first page, so full and prefix do the same work after each. They are measured once per round,
on the window of the slide, in one round before the events and in the next after them. Their own order changes as well.

Background work is finished between two measurements; its time is remember_ms.
"""

from __future__ import annotations

import itertools
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from benchmarks.baselines import Figures, Pixels, medians
from benchmarks.command import parser_of, show, versions
from benchmarks.session import Session, picture
from kamera_agent import Kamera
from kamera_agent.pocket.model import SMALL_SHAPE, build_model, build_processor

NUM_KEPT, NUM_PAGES, SEED = 4, 5, 0
EVENTS = ("slide", "reorder", "recall", "revisit")
WAYS = ("ours", "bare", "prefix", "full", "remember")


def page(seed: int) -> Pixels:
    """A screenshot [720, 1280, 3] uint8; each seed gives another."""
    return picture(720, 1280, seed)


class Bench:
    """Two windows of one Kamera. One of them gets new pages only, the other goes round the same five."""

    def __init__(self) -> None:
        self.kamera = Kamera(build_model(seed=SEED), build_processor())
        self.fresh = (page(seed) for seed in itertools.count(NUM_PAGES))
        self.turns = itertools.cycle([page(seed) for seed in range(NUM_PAGES)])
        self.line, self.circle = Session(self.kamera, NUM_KEPT), Session(self.kamera, NUM_KEPT)
        for _ in range(NUM_KEPT):
            self.line.see(next(self.fresh))
        self.line.answer()
        # After two rounds, each page comes back after the same three, so its patch fits.
        for _ in range(2 * NUM_PAGES):
            self.circle.see(next(self.turns))
            self.circle.answer()
            self.kamera.flush()

    def round(self, number: int) -> dict[str, Figures]:
        """Figures of every event, each measured once. number: of the round; it sets the order of the ways."""
        new, back = next(self.fresh), next(self.turns)
        line, circle = self.line, self.circle
        baselines = line.baselines(new)
        full_first = number % 4 < 2
        shared = {} if number % 2 else baselines.figures(full_first)
        figures = {"slide": line.measure(lambda: line.see(new), baselines, num_new=1)}
        order = line.ids[::-1]
        figures["reorder"] = line.measure(lambda: line.window.reorder(order), baselines, num_new=0)
        oldest, second = line.ids[:2]
        line.answer(lambda: line.window.drop(oldest))
        recall = partial(line.window.recall, oldest, at=second)
        figures["recall"] = line.measure(recall, baselines, num_new=0)
        figures["revisit"] = circle.measure(lambda: circle.see(back), baselines, num_new=0)
        shared = shared or baselines.figures(full_first)
        return {event: shared | ms for event, ms in figures.items()}


def rounds(num_rounds: int) -> dict[str, list[Figures]]:
    """Figures of every event, by round. The first round is a warm-up and does not count."""
    bench = Bench()
    measured: dict[str, list[Figures]] = {event: [] for event in EVENTS}
    for index in range(num_rounds + 1):
        figures = bench.round(index)
        _print(index, figures)
        for event in EVENTS if index else ():
            measured[event].append(figures[event])
    bench.kamera.close()
    return measured


def _print(index: int, figures: dict[str, Figures]) -> None:
    for event, ms in figures.items():
        times = "  ".join(f"{way} {ms[way]:8.0f} ms" for way in WAYS)
        print(f"{f'round {index}' if index else 'warm-up':8} {event:8} {times}", flush=True)


def summary(measured: dict[str, list[Figures]]) -> dict[str, Any]:
    """Medians by event."""
    return {event: medians(figures, WAYS) for event, figures in measured.items()}


def conditions(num_rounds: int) -> dict[str, Any]:
    """The conditions of the figures."""
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
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after a warm-up (default 5)")
    options = parser.parse_args()
    result = {**summary(rounds(options.rounds)), "conditions": conditions(options.rounds)}
    show(result, options.json)


if __name__ == "__main__":
    main()
