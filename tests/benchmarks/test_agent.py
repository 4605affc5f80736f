"""The agent benchmark on a tiny model, against tokens counted by hand."""

from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from models import TINY, kl, screenshot
from PIL import Image

from benchmarks.agent import Bench, Step, run, summary
from benchmarks.baselines import Prompt
from examples.ui_agent.first_token import watch
from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor

# A screenshot of 168x112 is 6 x 4 cells of 28 pixels, between two markers.
CHUNK = 26
QUESTION = "What changed?"


def png(seed: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(screenshot(seed)).save(buffer, "PNG")
    return buffer.getvalue()


A, B, C, D = map(png, range(4))
STEPS = [
    Step((A,), QUESTION, "new", None),
    Step((A, B), QUESTION, "new", None),
    Step((A, B, C), QUESTION, "new", None),
    Step((B, C, D), QUESTION, "new", None),
    Step((A, B, C, D), QUESTION, "look back", None),
    Step((C, D, A), QUESTION, "revisit", None),
]


def test_tokens_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefix: the window of the fifth step begins with that of the third, and only its last screenshot comes after it.

    Ours, besides what is refreshed: in the fifth step A comes back with its patch; in the sixth A stays and moves after
    the others. A refresh never makes it more than a full prefill.
    """
    processor = build_processor(TINY)
    measured = run(STEPS, build_model(TINY), processor)

    def count(text: str) -> int:
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    head = count("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
    tail = count(f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    assert [figures["full_tokens"] for figures in measured] == [head + n * CHUNK + tail for n in (1, 2, 3, 3, 4, 3)]
    assert [figures["prefix_tokens"] for figures in measured] == [
        head + CHUNK + tail,
        *(n * CHUNK + tail for n in (1, 1, 3, 1, 3)),
    ]
    new = [head + CHUNK + tail, *(n * CHUNK + tail for n in (1, 1, 1, 0, 0))]
    refreshed = [figures["ours_tokens"] for figures in measured]
    assert refreshed[:3] == new[:3]
    assert all(
        fewest < computed < figures["full_tokens"]
        for fewest, computed, figures in zip(new[3:], refreshed[3:], measured[3:], strict=True)
    )
    monkeypatch.setattr("benchmarks.agent.Kamera", partial(Kamera, stale="keep"))
    kept = run(STEPS, build_model(TINY), processor)
    assert [figures["ours_tokens"] for figures in kept] == new
    # Until a screenshot leaves, ours is a prefix cache, whichever of the two is measured first.
    assert [figures["agree"] for figures in measured[:3]] == [1, 1, 1]
    assert max(figures["kl"] for figures in measured[:3]) == pytest.approx(0, abs=1e-9)


def test_the_order_of_the_methods_changes_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the warm-up and in the run: in three steps in a row, each method is once at each place."""
    order: list[str] = []

    def note(way: str, method: Any) -> Any:
        return lambda *args: (order.append(way), method(*args))[1]

    for way in ("ours", "prefix", "full"):
        monkeypatch.setattr(Bench, f"_{way}", note(way, getattr(Bench, f"_{way}")))
    run(STEPS, build_model(TINY), build_processor(TINY))
    steps = [order[index : index + 3] for index in range(0, len(order), 3)]
    assert len(steps) == 5 + len(STEPS)
    for some in (steps[:3], steps[5:8], steps[8:11]):
        assert [sorted(places) for places in zip(*some, strict=True)] == [["full", "ours", "prefix"]] * 3


def test_the_prefix_cache_gives_what_a_full_prefill_gives() -> None:
    """The prefix cache does all the work that it is measured for."""
    model, processor = build_model(TINY), build_processor(TINY)
    bench = Bench(model, processor)
    for step in STEPS:
        prompt = Prompt(model, processor, [np.array(Image.open(BytesIO(data))) for data in step.screens], QUESTION)
        with watch(model) as prefix:
            bench._prefix(prompt, step)
        with watch(model) as full:
            bench.caches[step.screens] = prompt.full_prefill()
        assert kl(full.logits, prefix.logits) == pytest.approx(0, abs=1e-9)
    bench.kamera.close()


def test_ratios_are_those_of_sums() -> None:
    one = {"ours_tokens": 10, "prefix_tokens": 30, "full_tokens": 40, "ours_ms": 1.0, "prefix_ms": 2.0, "full_ms": 4.0}
    two = {"ours_tokens": 30, "prefix_tokens": 30, "full_tokens": 40, "ours_ms": 3.0, "prefix_ms": 3.0, "full_ms": 4.0}
    rest = {"remember_ms": 5.0, "kl": 0.5}
    steps = [Step((A,), QUESTION, "new", None), Step((A, B), QUESTION, "revisit", None)]
    result = summary(steps, [one | rest | {"agree": 1.0}, two | rest | {"agree": 0.0}])
    assert (result["tokens_ratio_prefix"], result["tokens_ratio_full"]) == (1.5, 2.0)
    assert (result["ttft_ratio_prefix"], result["ttft_ratio_full"]) == (1.25, 2.0)
    assert (result["agree_random"], result["remember_ms"]) == (0.5, 10)
    assert result["events"]["new"]["tokens_ratio_prefix"] == 3.0
    assert result["events"]["revisit"]["steps"] == 1
