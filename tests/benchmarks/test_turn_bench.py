"""The turn benchmark on a tiny model, with tokens counted by hand."""

import pytest
from models import TINY

from benchmarks import turn
from benchmarks.session import PARTS
from benchmarks.turn import NUM_WARM, SETTINGS, SIZES, run, summary
from kamera_agent.pocket.model import build_model, build_processor

NUM_STEPS = 8


def test_every_step_is_measured_by_both_settings() -> None:
    """The bench itself asserts that the bare pass has the tokens of the step, new and old."""
    processor = build_processor(TINY)
    measured = run(build_model(TINY), processor, SIZES["small"], NUM_STEPS)

    def count(text: str) -> int:
        return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    assert list(measured) == list(SETTINGS)
    for steps in measured.values():
        assert len(steps) == NUM_STEPS - NUM_WARM
        assert all(step[part] > 0 for step in steps for part in ("first", "background", *PARTS))
        assert ["bare" in step for step in steps] == [True, False, False, False]
        # Per step a page and the text about it, the text in the place of an older page, and both marks of turns.
        texts = "Page 0-0-0:", "(a page that has gone)", "I click on 0-0-0."
        marks = "<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
        (before, after) = (step["total"] for step in steps[-2:])
        assert after - before == sum(map(count, (*texts, *marks)))
        assert summary(steps)["window_tokens"] == after


def test_the_default_settings_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "NUM_DEFAULT", 6)
    measured = run(build_model(TINY), build_processor(TINY), SIZES["small"], NUM_STEPS)
    assert {name: len(steps) for name, steps in measured.items()} == {"keep": 4, "default": 2}


def test_growth_compares_the_last_steps_with_those_around_the_twentieth() -> None:
    """200 steps; all figures are 1 in the early ones, and planning takes twice as long as that at the end.

    One of four steps has a bare pass.
    """
    steps = [
        dict.fromkeys(("background", *PARTS, "total"), 1.0)
        | {"plan": 2.0 if number >= 180 else 1.0 if 10 <= number < 30 else 5.0}
        | {"first": 6.0 if number >= 180 and number % 4 else 3.0}
        | ({} if number % 4 else {"bare": 2.0})
        for number in range(NUM_WARM, 200)
    ]
    figures = summary(steps)
    assert figures["growth"] == {"plan": 2.0, "rebuild": 1.0, "first_token": 1.0}
    assert (figures["overhead_p50"], figures["plan_ms_p95"]) == (1.5, 5.0)
    assert summary(steps[:40])["growth"] == {"plan": None, "rebuild": None, "first_token": None}
