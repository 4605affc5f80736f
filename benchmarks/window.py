"""Time to first token of an edited window: Kamera, a full re-prefill, a prefix cache, the bare new tokens.

    python -m benchmarks.window --json

A window of four 1280x720 screenshots (1,196 tokens each) and a question, on a Qwen2.5-VL of about 60 million
parameters with seeded random weights. Every round measures all methods, one after the other. The figures are medians
over the rounds, after a round that warms up.

slide    a new screenshot comes, and the oldest goes
reorder  the four change places
recall   the oldest was dropped in the turn before and returns to its place
revisit  an agent goes round five pages: one that it has seen before comes, and the oldest goes

ours     the edit and generate() up to the first token, with preprocessing and fingerprint. Stale spans stay as they are
         (stale="keep"), so as many tokens are computed as for bare
full     preprocessing, vision encoder and forward pass of everything
prefix   forward pass of everything after the unchanged beginning, with cached encoder outputs of known screenshots
bare     forward pass of just the tokens that ours computes, over a DynamicCache of all others, with the encoder of a
         new screenshot but without its preprocessing; mean of one run before ours and one after it

The time of the same turn with stale="refresh", the default, is refreshed_ms; refreshed is its ratio to ours. Nothing is
healed (heal="never"), because healing would take the cores from whatever is timed.

All four events change the first page, so full and prefix do the same work after each. They are measured once per round,
on the window of the slide, in one round before the events and in the next after them. Their own order changes as well.

Chunks are written down between two measurements, which takes remember_ms. The parts of ours, and of the refreshed turn,
are edit, plan, rebuild and prefill.
"""

from __future__ import annotations

import itertools
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch

from benchmarks.baselines import Figures, Pixels
from benchmarks.command import parser_of, show, versions
from benchmarks.pair import Pair, recall, reorder, slide, summarise
from benchmarks.session import Session, picture
from kamera_agent import Kamera
from kamera_agent.pocket.model import SMALL_SHAPE, build_model, build_processor

NUM_KEPT, NUM_PAGES, SEED = 4, 5, 0
EVENTS = ("slide", "reorder", "recall", "revisit")
WAYS = ("ours", "bare", "prefix", "full", "remember")
SHOWN = (*WAYS, "refreshed")


def page(seed: int) -> Pixels:
    """A screenshot [720, 1280, 3] uint8; each seed gives another."""
    return picture(720, 1280, seed)


class Bench:
    """Two pairs of windows over one model. One of them gets new pages only, the other goes round the same five."""

    def __init__(self) -> None:
        kamera = partial(Kamera, build_model(seed=SEED), build_processor(), heal="never")
        self.kameras = kamera(stale="keep"), kamera(stale="refresh")
        self.fresh = (page(seed) for seed in itertools.count(NUM_PAGES))
        self.turns = itertools.cycle([page(seed) for seed in range(NUM_PAGES)])
        self.line, self.circle = (Pair(*(Session(kamera, NUM_KEPT) for kamera in self.kameras)) for _ in range(2))
        for _ in range(NUM_KEPT):
            self.line.answer(partial(slide, next(self.fresh)))
        # After two rounds, each page comes back after the same three, so its patch fits.
        for _ in range(2 * NUM_PAGES):
            self.circle.answer(partial(slide, next(self.turns)))
            for each in self.kameras:
                each.flush()

    def round(self, number: int) -> dict[str, Figures]:
        """Figures of every event, each measured once. number: of the round; it sets the order of the ways."""
        new, back = next(self.fresh), next(self.turns)
        baselines = self.line.kept.baselines(new)
        full_first, order = number % 4 < 2, {"refreshed_first": number % 2 == 1}
        shared = {} if number % 2 else baselines.figures(full_first)
        measure = partial(self.line.measure, baselines=baselines, **order)
        figures = {"slide": measure(partial(slide, new), num_new=1), "reorder": measure(reorder, num_new=0)}
        figures["recall"] = measure(recall, num_new=0)
        figures["revisit"] = self.circle.measure(partial(slide, back), baselines, num_new=0, **order)
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
    for kamera in bench.kameras:
        kamera.close()
    return measured


def _print(index: int, figures: dict[str, Figures]) -> None:
    for event, ms in figures.items():
        times = "  ".join(f"{way} {ms[way]:8.0f} ms" for way in SHOWN)
        print(f"{f'round {index}' if index else 'warm-up':8} {event:8} {times}", flush=True)


def summary(measured: dict[str, list[Figures]]) -> dict[str, Any]:
    """Medians by event."""
    return {event: summarise(figures, WAYS) for event, figures in measured.items()}


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
