"""What is promised exact equals a plain Hugging Face prefill of the same content."""

from typing import Any

import pytest
import torch
from huggingface import Conversation, Frames
from models import MakeKamera, max_error, screenshot

from kamera_agent import Window
from kamera_agent.pocket.model import PocketProcessor

SIZES = [(112, 168), (56, 56), (196, 84), (130, 250)]
CLIP = [screenshot(10 + i) for i in range(3)]
EDITS = ["drop first", "drop middle", "reorder", "recall at front", "recall at end", "slide", "sync"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_nothing_dropped(make: MakeKamera, model: Any, processor: PocketProcessor, attention: str) -> None:
    """Four grids, two images adjacent, an odd number of frames, text before, between and after, three turns."""
    model.set_attn_implementation(attention)
    try:
        window = make(model).window(system="You watch.")
        talk = Conversation(model, processor, system="You watch.")
        images = [screenshot(i, *size) for i, size in enumerate(SIZES)]
        for image in images[:2]:
            window.add_image(image)
        window.add_text("first")
        window.add_image(images[2])
        window.add_frames(CLIP, timestamps=[0.0, 1.0, 2.0])
        window.add_image(images[3])
        contents = [*images[:2], "first", images[2], Frames(CLIP, 1.0), images[3]]
        for turn in range(3):
            talk.say("user", *contents, "what?")
            assert max_error(talk.logits(), window.logits("what?")) <= 1e-4
            reply = window.generate("what?", max_new_tokens=5)
            talk.say("assistant", _said(window, reply.span_id))
            contents = [screenshot(20 + turn), "look"]
            window.add_image(contents[0])
            window.add_text("look")
        assert max_error(talk.say("user", *contents).logits(), window.logits()) <= 1e-4
        assert all(span.exact in (True, None) for span in window.spans)
    finally:
        model.set_attn_implementation("sdpa")


def _said(window: Window, span_id: str | None) -> tuple[int, ...]:
    """Token ids of a reply: noise bytes need not survive being text."""
    return next(item.run.token_ids for item in window._items.live if item.id == span_id)


def test_greedy_reply_is_that_of_hugging_face(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    window = make(model).window()
    window.add_image(screenshot(0))
    window.add_frames(CLIP[:2])
    reply = window.generate("what is it?", max_new_tokens=16)
    talk = Conversation(model, processor).say("user", screenshot(0), Frames(CLIP[:2], 0.5), "what is it?")
    assert reply.text == talk.generate(16)
    assert reply.usage.tokens_generated == 16 or reply.finish_reason == "stop"


@pytest.mark.parametrize("edit", EDITS)
def test_exact_fidelity_after_any_edit(make: MakeKamera, model: Any, processor: PocketProcessor, edit: str) -> None:
    kamera = make(model, fidelity="exact")
    window = kamera.window()
    ids = [window.add_image(screenshot(i)) for i in range(4)]
    window.add_text("stays")
    window.logits("what?")
    kamera.flush()
    left = _edit(window, ids, edit)
    assert max_error(Conversation(model, processor).say("user", *left).logits(), window.logits()) <= 1e-4
    assert {span.origin for span in window.spans} <= {"computed", "kept"}
    assert all(span.exact for span in window.spans)


def _edit(window: Window, ids: list[str], edit: str) -> list[Any]:
    """Edit the window; returns what a reader would say it holds now."""
    images = [screenshot(i) for i in range(4)]
    if edit == "drop first":
        window.drop(ids[0])
        return [*images[1:], "stays"]
    if edit == "drop middle":
        window.drop(ids[1])
        return [images[0], *images[2:], "stays"]
    if edit == "reorder":
        window.reorder([ids[2], ids[0], ids[3], ids[1]])
        return [images[2], images[0], images[3], images[1], "stays"]
    if edit == "slide":
        window.slide(2)
        return [*images[2:], "stays"]
    if edit == "sync":
        window.sync([ids[3], ids[1]])
        return [images[3], images[1]]
    window.drop(ids[2])
    window.logits("in between")
    window.recall(ids[2], at=ids[0] if edit == "recall at front" else None)
    rest = [images[0], images[1], images[3], "stays"]
    return [images[2], *rest] if edit == "recall at front" else [*rest, images[2]]


def test_windows_do_not_leak_into_each_other(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    """Two windows step by step in turn, a text-only one between: each has the logits it has alone."""
    kamera = make(model)
    one, two, text = kamera.window(), kamera.window(), kamera.window()
    alone_one, alone_two = (Conversation(model, processor).say("user") for _ in range(2))
    for step in range(3):
        one.add_image(screenshot(step))
        two.add_frames([screenshot(30 + step, 56, 84), screenshot(40 + step, 56, 84)])
        alone_one.turns[0][1].append(screenshot(step))
        alone_two.turns[0][1].append(Frames([screenshot(30 + step, 56, 84), screenshot(40 + step, 56, 84)], 0.5))
        expected = alone_one.logits(), alone_two.logits()
        assert max_error(expected[0], one.logits()) <= 1e-4
        only_text = Conversation(model, processor).say("user", "hi").logits()
        assert max_error(only_text, text.logits("hi")) <= 1e-4
        assert max_error(expected[1], two.logits()) <= 1e-4


def test_same_image_twice_is_encoded_once(make: MakeKamera, model: Any, processor: PocketProcessor) -> None:
    kamera = make(model)
    window = kamera.window()
    window.add_image(screenshot(0))
    window.add_text("and again")
    window.add_image(screenshot(0))
    expected = Conversation(model, processor).say("user", screenshot(0), "and again", screenshot(0)).logits()
    assert max_error(expected, window.logits()) <= 1e-4
    assert kamera.stats().encoder_calls == 1


def test_logits_are_float32_over_the_vocabulary(make: MakeKamera, model: Any) -> None:
    logits = make(model).window().logits("hi")
    assert (logits.dtype, logits.shape) == (torch.float32, (model.config.text_config.vocab_size,))
