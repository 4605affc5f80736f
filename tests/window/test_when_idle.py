"""What a window does beside its answers: tasks, and a full prefill for later; and answers from exact KV only."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot

from kamera_agent import Window
from kamera_agent.pocket.model import PocketProcessor


def moved(make: MakeKamera, model: Any, **options: Any) -> Window:
    """A window with chunks that have moved."""
    window = make(model, stale="keep", **options).window()
    for seed in range(3):
        window.add_image(screenshot(seed))
    window.logits("what?")
    window.slide(2)
    window.add_text("well?")
    return window


def test_exact_only_is_all_or_nothing(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    """Every span is planned as with fidelity="exact", and later again as before."""
    window = moved(make, model)
    assert not window.plan().is_exact
    window.exact_only = True
    assert window.plan().is_exact
    talk = Conversation(model, processor).say("user", screenshot(1), screenshot(2), "well?")
    assert max_error(talk.logits(), window.logits()) <= 1e-4
    window.exact_only = False
    window.slide(1)
    assert not window.plan().is_exact


def test_a_full_prefill_is_of_the_window_as_it_was(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    """It may end at any of its ticks, and be begun again."""
    window = moved(make, model)
    full_prefill = window.full_prefill()
    window.generate("and?", max_tokens=2)
    window.slide(0)
    logits = window.logits("so?")
    for num_ticks in range(10):
        with pytest.raises(StopIteration):
            full_prefill(iter([None] * num_ticks).__next__)
    talk = Conversation(model, processor).say("user", screenshot(1), screenshot(2), "well?")
    assert max_error(talk.logits(), full_prefill(lambda: None)) <= 1e-4
    assert max_error(logits, window.logits("so?")) <= 1e-4


def test_a_task_comes_after_healing(make: MakeKamera, model: Any) -> None:
    """Only the last one that was given is done, once, and never beside an answer over the window."""
    window, done = moved(make, model, heal="idle"), list[str]()
    window.logits("what?")
    for name in ("first", "last"):
        window.idle.then(lambda gives_way, name=name: done.append(f"{name}, gives way: {gives_way()}"))
    stream = window.stream("go on", max_tokens=3)
    next(stream)
    assert window.idle.heal(lambda: False) is None
    stream.finish()
    while window.idle.heal(lambda: False):
        assert done == []
    assert all(span.exact for span in window.spans)
    assert window.idle.heal(lambda: False) == 0
    assert done == ["last, gives way: False"]


@pytest.mark.usefixtures("awake")
def test_a_thread_does_it(make: MakeKamera, model: Any) -> None:
    done = threading.Event()
    task: Callable[[Any], None] = lambda _: done.set()  # noqa: E731
    window = moved(make, model, heal="never")
    window.idle.then(task)
    assert done.wait(30)
