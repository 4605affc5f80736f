"""A text that is written anew after its beginning keeps the KV of that beginning, where that is exact."""

from itertools import takewhile
from operator import eq
from typing import Any

import pytest
from huggingface import Conversation
from models import MakeKamera, max_error, screenshot

from kamera_agent import ImageContent, TextContent, Window
from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.window.plan import PlanRow

FIRST = "history one two three"
CHANGES = {
    "longer": f"{FIRST} four five",
    "shorter": "history one",
    "other end": "history one six seven",
    "other word": "history ones",
    "all new": "other words",
}


def show(window: Window, text: str) -> str:
    """An image, a text, and another image; returns the id of the text."""
    first, last = ImageContent(screenshot(0)), ImageContent(screenshot(1))
    return window.sync([first, TextContent(text), last])[1]


def row_of(window: Window, span_id: str) -> PlanRow:
    return next(row for row in window.plan().rows if row.id == span_id)


def num_common(processor: PocketProcessor, *texts: str) -> int:
    """Tokens at the beginning that texts have in common."""
    return len([*takewhile(bool, map(eq, *(processor.tokenizer(text).input_ids for text in texts)))])


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
def test_the_beginning_stays(make: MakeKamera, model: Any, processor: PocketProcessor, text: str) -> None:
    """Again and again, with answers between."""
    window = make(model, fidelity="exact").window()
    show(window, FIRST)
    window.generate("what?", max_new_tokens=3)
    for before, now in ((FIRST, text), (text, FIRST), (FIRST, text)):
        row = row_of(window, show(window, now))
        num_kept = num_common(processor, before, now)
        assert row.num_tokens - row.num_computed == pytest.approx(num_kept)
        assert (row.origin, row.exact) == ("kept" if num_kept else "computed", True)
        talk = Conversation(model, processor).say("user", screenshot(0), now, screenshot(1), "what?")
        assert max_error(talk.logits(), window.logits("what?")) <= 1e-4
        row = row_of(window, show(window, now))
        assert (row.origin, row.num_computed, row.exact) == ("kept", 0, True)
        window.check_integrity()


def test_usage(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    window = make(model, fidelity="exact").window()
    show(window, FIRST)
    window.generate("what?", max_new_tokens=1)
    show(window, text := CHANGES["longer"])
    plan, usage = (reply := window.generate("what?", max_new_tokens=1)).plan, reply.usage
    num_kept = num_common(processor, FIRST, text)
    rows = [row for row in plan.rows if row.near is None]
    assert len(rows) == len(plan.rows) - 1
    assert usage.tokens_kept == num_kept + sum(row.num_tokens for row in rows if row.origin == "kept")
    assert usage.tokens_computed == plan.num_computed
    assert usage.tokens_refreshed == 0


def test_after_what_is_not_exact(make: MakeKamera) -> None:
    """KV that saw other content, or comes after KV that did, is not a beginning that could be kept."""
    window = make(store=None, stale="keep").window()
    window.sync([ImageContent(screenshot(0)), ImageContent(screenshot(1)), TextContent(FIRST)])
    window.generate("what?", max_new_tokens=1)
    span_ids = window.sync([ImageContent(screenshot(1)), TextContent(CHANGES["longer"])])
    rows = [row_of(window, span_id) for span_id in span_ids]
    assert [row.origin for row in rows] == ["moved", "computed"]


def test_a_text_that_is_needed_elsewhere_stays_whole(make: MakeKamera) -> None:
    window = make().window()
    [first] = window.sync([TextContent(FIRST)])
    window.logits("what?")
    new, *_ = window.sync([TextContent("history one two"), ImageContent(screenshot(0)), first])
    assert [row_of(window, span_id).origin for span_id in (new, first)] == ["computed", "moved"]
    assert window.logits("what?").isfinite().all()
    window.check_integrity()


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES)
def test_the_beginning_of_another_window(make: MakeKamera, model: Any, processor: PocketProcessor, text: str) -> None:
    kamera = make(model, fidelity="exact")
    old, new = kamera.window(), kamera.window()
    show(old, FIRST)
    expected = old.logits("what?")
    span_id = show(new, text)
    new.adopt(old)
    assert next(span for span in new.spans if span.id == span_id).origin is None
    row = row_of(new, span_id)
    assert row.num_tokens - row.num_computed == pytest.approx(num_common(processor, FIRST, text))
    talk = Conversation(model, processor).say("user", screenshot(0), text, screenshot(1), "what?")
    assert max_error(talk.logits(), new.logits("what?")) <= 1e-4
    assert max_error(expected, old.logits("what?")) <= 1e-4
    for window in (old, new):
        window.check_integrity()
