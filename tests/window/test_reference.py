"""Windows against the plain Hugging Face prefill of the same content."""

from typing import Any

import pytest
import torch

from conftest import MakeKamera
from kamera_agent import Kamera, Window
from models import kl, max_error, screenshot

SIZES = [(112, 168), (56, 56), (196, 84), (130, 250)]


def mixed_window(kamera: Kamera) -> Window:
    """Images of four grids, two of them adjacent, text between, and an odd number of frames."""
    window = kamera.window(system="You watch.")
    window.add_image(screenshot(0, *SIZES[0]))
    window.add_image(screenshot(1, *SIZES[1]))
    window.add_text("first")
    window.add_image(screenshot(2, *SIZES[2]))
    window.add_frames([screenshot(10 + i) for i in range(3)], timestamps=[0.0, 0.4, 0.8])
    window.add_text("between")
    window.add_image(screenshot(3, *SIZES[3]))
    return window


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_nothing_dropped_is_a_full_prefill(make: MakeKamera, model: Any, attention: str) -> None:
    """fp32, after every step of a growing conversation: logits equal the reference within 1e-4."""
    model.set_attn_implementation(attention)
    try:
        window = mixed_window(make(model))
        for turn in range(3):
            assert max_error(window.reference_logits("what?"), window.logits("what?")) <= 1e-4
            window.generate("and now?", max_new_tokens=5)
            window.add_image(screenshot(20 + turn))
            window.add_text("look", role="user" if turn else "assistant")
        assert max_error(window.reference_logits(), window.logits()) <= 1e-4
        assert all(span.exact in (True, None) for span in window.spans)
    finally:
        model.set_attn_implementation("sdpa")


def test_greedy_reply_is_that_of_hugging_face(make: MakeKamera, model: Any) -> None:
    """16 greedy tokens one by one over the pool, against one full prefill per token."""
    window = mixed_window(make(model))
    family = window._engine.family
    pieces = [span for span in window.spans]
    reply = window.generate("what is it?", max_new_tokens=16)
    replayed = mixed_window(make(model))
    replayed.add_text("what is it?")
    tokens: list[int] = []
    for _ in range(16):
        from kamera_agent.chunk import TextRun
        from kamera_agent.layout import lay_out

        runs = [piece.run for piece in lay_out(replayed._items.live, family, "reply")]
        logits = family.reference_logits([*runs, TextRun(tuple(tokens))] if tokens else runs)
        token = int(logits.argmax())
        if token in family.stop_ids:
            break
        tokens.append(token)
    assert reply.text == family.detokenize(tokens)
    assert reply.usage.tokens_generated == len(tokens)
    assert len(window.spans) > len(pieces)


@pytest.mark.parametrize("edit", ["drop first", "drop middle", "reorder", "recall at front", "recall at end", "slide"])
def test_exact_fidelity_equals_the_reference_after_any_edit(make: MakeKamera, model: Any, edit: str) -> None:
    window = make(model, fidelity="exact").window()
    ids = [window.add_image(screenshot(i)) for i in range(4)]
    window.add_text("stays")
    window.generate("what?", max_new_tokens=3)
    if edit == "drop first":
        window.drop(ids[0])
    elif edit == "drop middle":
        window.drop(ids[1])
    elif edit == "reorder":
        window.reorder([ids[2], ids[0], ids[3], ids[1]])
    elif edit == "slide":
        window.slide(2)
    else:
        window.drop(ids[2])
        window.logits("between")
        window.recall(ids[2], at=ids[0] if edit == "recall at front" else None)
    assert max_error(window.reference_logits("which?"), window.logits("which?")) <= 1e-4
    origins = {row.origin for row in window.generate("which?", max_new_tokens=1).plan.rows}
    assert origins <= {"computed", "kept"}


@torch.no_grad()
def recalled_logits(make: MakeKamera, model: Any, num_images: int, **options: Any) -> torch.Tensor:
    """1. One Kamera sees the images and remembers them. 2. Another, over the same store, is asked about them:
    every chunk is recalled."""
    first = make(model, **options)
    seen = first.window()
    for i in range(num_images):
        seen.add_image(screenshot(i))
    seen.logits("what?")
    first.flush()
    second = make(model, store=first.store, **options)
    window = second.window()
    for i in range(num_images):
        window.add_image(screenshot(i))
    assert window.plan().num_tokens("computed") == window.plan().num_tokens() - 26 * num_images
    origin = "blind" if options.get("fidelity") == "blind" else "recalled"
    assert {span.origin for span in window.spans if span.kind == "image"} == {None}
    logits = window.logits("what?")
    assert {span.origin for span in window.spans if span.kind == "image"} == {origin}
    assert second.stats().encoder_calls == 0
    return logits


def reference(make: MakeKamera, model: Any, num_images: int) -> torch.Tensor:
    window = make(model).window()
    for i in range(num_images):
        window.add_image(screenshot(i))
    return window.reference_logits("what?")


def test_full_rank_recall_equals_the_reference(make: MakeKamera, model: Any) -> None:
    full = reference(make, model, 4)
    assert max_error(full, recalled_logits(make, model, 4, rank=26)) <= 1e-3


def test_recall_error_falls_with_rank_and_blind_is_worst(make: MakeKamera, model: Any) -> None:
    full = reference(make, model, 4)
    ranks = (1, 2, 4, 8, 16, 26)
    logits = {rank: recalled_logits(make, model, 4, rank=rank) for rank in ranks}
    errors = [float((full - logits[rank]).norm()) for rank in ranks]
    slack = 0.02 * errors[0]
    assert all(later <= earlier + slack for earlier, later in zip(errors, errors[1:], strict=False)), errors
