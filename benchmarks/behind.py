"""What writing chunks after answers adds to the time to the first token of the next answer.

    python -m benchmarks.behind --json [--rounds 12]

An agent shows its last three screenshots, on a Qwen2.5-VL of about 60 million parameters with seeded random weights
and a store on disk. With each turn a new screenshot comes, and what was computed of it is written after the answer. A
round has three turns, in rotating order:

behind   follows the turn before at once, so that the chunk of that turn is encoded, copied and synced meanwhile. An
         agent that acts between two turns leaves time for that
settled  begins when all is on disk
again    the same: its ratio to settled is the noise of the machine

Milliseconds from the new screenshot to the first token, medians over the rounds; of the ratios within each round, the
quartiles. work_share: the processor time that writing a chunk takes after a turn, over that of the turn. That is the
most that it can add on one core, and other programs hardly change it.

large: screenshots of 1280x720 (1,196 tokens). small: of 168x112 (26 tokens).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import count
from time import process_time
from typing import Any

from benchmarks.baselines import Figures
from benchmarks.command import parser_of, show
from benchmarks.session import Session, picture
from benchmarks.window import SEED, conditions
from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor

SIZES = {"large": (720, 1280), "small": (112, 168)}
WAYS = ("behind", "settled", "again")
NUM_KEPT = 3
# In the first turns, no screenshot leaves.
NUM_WARM = NUM_KEPT + 1


def run(kamera: Kamera, size: tuple[int, int], num_rounds: int) -> list[Figures]:
    """Milliseconds of every way, and `work_share`, round by round."""
    session, seeds = Session(kamera, NUM_KEPT), count()

    def turn() -> float:
        return session.answer(partial(session.see, picture(*size, next(seeds))))[0]

    for _ in range(NUM_WARM):
        turn()
    kamera.flush()
    rounds = []
    for number in range(num_rounds):
        first = number % len(WAYS)
        ms = {}
        for way in WAYS[first:] + WAYS[:first]:
            if way != "behind":
                kamera.flush()
            start = process_time()
            ms[way] = turn()
            if way == "again":
                between = process_time()
                kamera.flush()
                ms["work_share"] = (process_time() - between) / (between - start)
        rounds.append(ms)
    return rounds


def summary(rounds: Sequence[Figures]) -> dict[str, Any]:
    """Medians of the ways, and quartiles of the ratios to `settled`."""
    ratios = {way: [ms[way] / ms["settled"] for ms in rounds] for way in WAYS if way != "settled"}
    return {
        **{f"{way}_ms": round(statistics.median(ms[way] for ms in rounds), 2) for way in WAYS},
        **{f"{way}_ratio": [round(value, 3) for value in statistics.quantiles(some)] for way, some in ratios.items()},
        "work_share": round(statistics.median(ms["work_share"] for ms in rounds), 4),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--rounds", type=int, default=12, help="rounds of large screenshots (default 12); of small ones, five times"
    )
    num_rounds = max(2, parser.parse_args().rounds)
    result: dict[str, Any] = {}
    for name, size in SIZES.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            Kamera(build_model(seed=SEED), build_processor(), store=folder, stale="keep", heal="never") as kamera,
        ):
            result[name] = summary(run(kamera, size, num_rounds * (5 if name == "small" else 1)))
    show({**result, "conditions": conditions(num_rounds)}, parser.parse_args().json)


if __name__ == "__main__":
    main()
