"""Time to first token of a long edited window on a CUDA device.

    python -m benchmarks.gpu_window --json

A window of 8 screenshots (1280x720, 1,196 tokens each), 64 frames (448x448, 256 tokens each) and a question, on the
shape of Qwen2.5-VL-7B with seeded random weights in bfloat16. Every round measures all ways, one after the other;
medians over the rounds are reported.

slide          a new screenshot comes, the oldest goes
reorder        everything changes places
recall_memory  the oldest screenshot was dropped a turn ago and comes back from the memory tier
recall_disk    the same from the disk tier (nothing in the memory tier; the system may have the file in its cache)

ours, full, prefix and bare are those of benchmarks.window. In all events the first image is another than before, so
full and prefix have the same work: they are measured once a round, on the window of the slide.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers import DynamicCache

from benchmarks.baselines import Figures, Pixels, Prompt, head_of, medians, timed_ms
from kamera_agent import Kamera, Reply
from kamera_agent.config import MIB
from kamera_agent.pocket.model import Shape, build_model, build_processor

QUESTION, SEED = "What changed?", 0
EVENTS = ("slide", "reorder", "recall_memory", "recall_disk")
WAYS = ("ours", "bare", "prefix", "full")

QWEN2_5_VL_7B = Shape(
    hidden=3584,
    intermediate=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    sections=(16, 24, 24),
    vision_depth=32,
    vision_hidden=1280,
    vision_heads=16,
    vision_intermediate=3420,
    max_positions=128_000,
)


class Scene(NamedTuple):
    """What the window holds: screenshots first, then frames; (height, width) of each in pixels."""

    num_screens: int = 8
    screen: tuple[int, int] = (720, 1280)
    num_frames: int = 64
    frame: tuple[int, int] = (448, 448)


def picture(size: tuple[int, int], seed: int) -> Pixels:
    """[height, width, 3] uint8 noise in blocks; every seed another picture."""
    height, width = size
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


class Session:
    """A window full of pictures that answers the same question every turn."""

    def __init__(self, kamera: Kamera, scene: Scene) -> None:
        self.kamera, self.window = kamera, kamera.window()
        self.pictures: dict[str, Pixels] = {}
        sizes = [scene.screen] * scene.num_screens + [scene.frame] * scene.num_frames
        for seed, size in enumerate(sizes):
            self.see(picture(size, seed))
        self.answer(lambda: None)
        kamera.flush()

    @property
    def ids(self) -> list[str]:
        return [span.id for span in self.window.spans if span.kind == "image"]

    def see(self, pixels: Pixels) -> None:
        """A picture enters at the end."""
        self.pictures[self.window.add_image(pixels)] = pixels

    def slide(self, pixels: Pixels) -> None:
        """A picture enters, the oldest goes."""
        self.see(pixels)
        self.window.drop(self.ids[0])

    def answer(self, edit: Callable[[], object]) -> tuple[float, Reply]:
        """Milliseconds from the edit to the first token. Question and reply are taken out again."""
        edit_ms, _ = timed_ms(edit)
        reply = self.window.generate(QUESTION, max_new_tokens=1)
        for span in self.window.spans:
            if span.kind == "reply" or (span.kind == "text" and span.role == "user"):
                self.window.drop(span.id)
        return edit_ms + reply.timings.first_token_ms, reply


class Bench:
    """Two windows over one model, one with a memory tier and one with a disk tier, and the baselines."""

    def __init__(self, model: Any, processor: Any, scene: Scene, folder: str) -> None:
        self.model, self.processor, self.scene = model, processor, scene
        self.fresh = (picture(scene.screen, seed) for seed in count(1000))
        # What was dropped must come back from the store, so the window keeps no pixels of it.
        self.memory = Session(Kamera(model, processor, memory_bytes=32_768 * MIB), scene)
        self.disk = Session(Kamera(model, processor, store=folder, memory_bytes=0), scene)

    def round(self) -> dict[str, Figures]:
        """Every event once."""
        session, new = self.memory, next(self.fresh)
        images = [*(session.pictures[span_id] for span_id in session.ids[1:]), new]
        prompt = Prompt(self.model, self.processor, images, QUESTION)
        full_ms, cache = timed_ms(prompt.full_prefill)
        shared = {"full": full_ms, "prefix": _prefix_ms(prompt, cache), "tokens_full": len(prompt)}
        figures = {"slide": self._measure(session, lambda: session.slide(new), prompt, cache, num_new=1)}
        order = session.ids[::-1]
        figures["reorder"] = self._measure(session, lambda: session.window.reorder(order), prompt, cache, num_new=0)
        session.answer(lambda: session.window.reorder(order[::-1]))
        for name, there in (("recall_memory", session), ("recall_disk", self.disk)):
            oldest, second = there.ids[:2]
            there.answer(partial(there.window.drop, oldest))
            there.kamera.flush()
            recall = partial(there.window.recall, oldest, at=second)
            figures[name] = self._measure(there, recall, prompt, cache, num_new=0)
        return {event: shared | ms for event, ms in figures.items()}

    def _measure(
        self, session: Session, edit: Callable[[], object], prompt: Prompt, cache: DynamicCache, num_new: int
    ) -> Figures:
        """Our time to first token, and on both sides of it the bare forward pass of the same number of tokens."""
        before_ms = _bare_ms(prompt, cache, num_new)
        ours_ms, reply = session.answer(edit)
        session.kamera.flush()
        bare_ms = (before_ms + _bare_ms(prompt, cache, num_new)) / 2
        computed = reply.usage.tokens_computed
        assert computed == len(prompt) - prompt.tail_start(num_new), (computed, reply.plan)
        return {"ours": ours_ms, "bare": bare_ms, "tokens_computed": computed}

    def close(self) -> None:
        self.memory.kamera.close()
        self.disk.kamera.close()


def _prefix_ms(prompt: Prompt, cache: DynamicCache) -> float:
    """What a prefix cache keeps ends before the first image, which is another one than before."""
    last = len(prompt.images) - 1
    known = [prompt.features(index) for index in range(last)]
    head = head_of(cache, prompt.first_image)
    return timed_ms(lambda: prompt.forward_tail(head, prompt.first_image, [*known, prompt.features(last)]))[0]


def _bare_ms(prompt: Prompt, cache: DynamicCache, num_new: int) -> float:
    new = range(len(prompt.images) - num_new, len(prompt.images))
    patches = [prompt.patches([prompt.images[index]]) for index in new]
    start = prompt.tail_start(num_new)
    head = head_of(cache, start)

    def run() -> None:
        features = [prompt.features(index, values) for index, values in zip(new, patches, strict=True)]
        prompt.forward_tail(head, start, features)

    return timed_ms(run)[0]


def measure(model: Any, processor: Any, scene: Scene, num_rounds: int) -> dict[str, Any]:
    """Medians of the times, and of the ratios within each round. A first round warms up and is left out."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, processor, scene, folder)
        rounds = [bench.round() for _ in range(num_rounds + 1)][1:]
        bench.close()
    return {event: medians([figures[event] for figures in rounds], WAYS) for event in EVENTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on the last line")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, besides the warm-up (default 5)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu_window measures a CUDA device, and there is none; benchmarks.window measures a CPU.")
    scene = Scene()
    with torch.device("cuda"):
        model = build_model(QWEN2_5_VL_7B, seed=SEED, dtype=torch.bfloat16)
    result = measure(model, build_processor(QWEN2_5_VL_7B), scene, options.rounds)
    result["conditions"] = {
        "model": "Qwen2.5-VL-7B shape, seeded random weights",
        "shape": asdict(QWEN2_5_VL_7B),
        "scene": scene._asdict(),
        "dtype": "bfloat16",
        "device": torch.cuda.get_device_name(),
        "rounds": options.rounds,
        "seed": SEED,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
