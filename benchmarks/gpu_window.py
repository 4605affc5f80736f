"""Time to first token of a long edited window on a CUDA device.

    python -m benchmarks.gpu_window --json

A window of 6 screenshots (1280x720, 1,196 tokens each), 12 frames (448x448, 256 tokens each) and a question, on the
shape of Qwen2.5-VL-7B with seeded random weights in bfloat16. Every round measures all methods, one after the other.
The figures are medians over the rounds; each round is printed as it ends.

slide          a new screenshot comes, and the oldest goes
reorder        all pictures change places
recall_memory  the oldest screenshot was dropped in the turn before and comes back from the memory tier
recall_disk    the same from the disk tier (the memory tier is empty; the file can be in the page cache)

benchmarks.window describes ours, full, prefix and bare. Here ours leaves stale spans as they are (stale="keep"), so it
computes the tokens of bare and no others; the time of the same turn with stale="refresh", the default, is refreshed,
which is also given as a ratio to ours. Nothing is healed (heal="never"): the thread that heals would take the device
and the interpreter from whatever is timed.

The time of ours is given in parts: edit, plan, rebuild, prefill and wait, which is the device's rest after the host has
queued all work, and the draw. bytes_read is what the store gave; tokens_refreshed belongs to refreshed.
"""

from __future__ import annotations

import tempfile
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from benchmarks.baselines import Figures
from benchmarks.command import parser_of, show
from benchmarks.large import build_large, large_conditions
from benchmarks.pair import Pair, recall, reorder, slide, summarise
from benchmarks.session import Session, picture
from kamera_agent import Kamera
from kamera_agent.config import MIB

EVENTS = ("slide", "reorder", "recall_memory", "recall_disk")
WAYS = ("ours", "bare", "prefix", "full")
MEMORY_BYTES = 32_768 * MIB


class Scene(NamedTuple):
    """The pictures of the window: screenshots, then frames. screen, frame: (height, width) in pixels."""

    num_screens: int = 6
    screen: tuple[int, int] = (720, 1280)
    num_frames: int = 12
    frame: tuple[int, int] = (448, 448)


class Bench:
    """Windows over one model, each with a Kamera of its own. Chunks come from the tier in memory, or from the disk."""

    def __init__(self, model: Any, processor: Any, scene: Scene, folder: str) -> None:
        kamera = partial(Kamera, model, processor, heal="never")
        self.fresh = (picture(*scene.screen, seed) for seed in count(1000))
        # A dropped picture can only come back from the tier under test.
        large = partial(kamera, memory_bytes=MEMORY_BYTES)
        self.memory = Pair(_filled(large(stale="keep"), scene), _filled(large(stale="refresh"), scene))
        self.disk = _filled(kamera(stale="keep", memory_bytes=0, store=folder), scene)

    def round(self, number: int) -> dict[str, Figures]:
        """Figures of every event, each measured once. number: of the round; it sets the order of the ways."""
        new = next(self.fresh)
        baselines = self.memory.kept.baselines(new)
        full_first = number % 4 < 2
        shared = {} if number % 2 else baselines.figures(full_first)
        measure = partial(self.memory.measure, baselines=baselines, refreshed_first=number % 2 == 1)
        figures = {"slide": measure(partial(slide, new), num_new=1), "reorder": measure(reorder, num_new=0)}
        self.memory.answer(reorder)
        figures["recall_memory"] = measure(recall, num_new=0)
        figures["recall_disk"] = self.disk.measure(recall(self.disk), baselines, num_new=0)
        shared = shared or baselines.figures(full_first)
        return {event: shared | ms for event, ms in figures.items()}

    def close(self) -> None:
        for session in (*self.memory, self.disk):
            session.kamera.close()


def _filled(kamera: Kamera, scene: Scene) -> Session:
    """A session that has seen every picture of a scene and has answered once."""
    sizes = [scene.screen] * scene.num_screens + [scene.frame] * scene.num_frames
    session = Session(kamera, len(sizes))
    for seed, size in enumerate(sizes):
        session.see(picture(*size, seed))
    session.answer()
    kamera.flush()
    return session


def measure(model: Any, processor: Any, scene: Scene, num_rounds: int) -> dict[str, Any]:
    """Medians by event. The first round is a warm-up and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, processor, scene, folder)
        rounds = [_shown(number, bench.round(number)) for number in range(num_rounds + 1)][1:]
        bench.close()
    return {event: summarise([figures[event] for figures in rounds], WAYS) for event in EVENTS}


def _shown(number: int, events: dict[str, Figures]) -> dict[str, Figures]:
    """The figures of a round, printed, so that they are not lost if a later round fails."""
    for event, figures in events.items():
        times = (f"{name} {value:.2f}" for name, value in figures.items())
        print(f"round {number}", event, *times, sep="  ", flush=True)
    return events


def main() -> None:
    parser = parser_of(__doc__)
    # Every round takes a screenshot away; after more, the oldest picture would be a frame.
    most = Scene().num_screens - 2
    parser.add_argument(
        "--rounds", type=int, default=3, choices=range(1, most + 1), help="measured rounds, after a warm-up (default 3)"
    )
    options = parser.parse_args()
    model, processor = build_large("benchmarks.gpu_window", "benchmarks.window")
    scene = Scene()
    result = measure(model, processor, scene, options.rounds)
    result["conditions"] = {"scene": scene._asdict(), **large_conditions(options.rounds)}
    show(result, options.json)


if __name__ == "__main__":
    main()
