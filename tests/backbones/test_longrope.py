"""RoPE that switches its frequencies at a length: what was computed on one side is never used on the other."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot
from prompts import Talk

from benchmarks.backbones.zoo.phi4_multimodal import ROTARY_PAIRS, phi4_multimodal
from kamera_agent import Kamera, Window

SWITCH = 88
A, B, C = (screenshot(seed, 70, 98) for seed in range(3))
QUESTION = "what is it?"


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return phi4_multimodal(torch.float32, SWITCH)


@pytest.fixture
def make(loaded: tuple[Any, Any]) -> Iterator[MakeKamera]:
    made: list[Kamera] = []

    def build(**options: Any) -> Kamera:
        made.append(Kamera(*loaded, **options))
        return made[-1]

    yield build
    for kamera in made:
        kamera.close()
        assert kamera._library.num_failed == 0


def error(loaded: tuple[Any, Any], window: Window, *parts: Any) -> float:
    """Of the window's logits, against the same prompt through plain Hugging Face."""
    return max_error(Talk(*loaded).say("user", *parts, QUESTION).logits(), window.logits(QUESTION))


def length(window: Window) -> int:
    return sum(span.num_tokens for span in window.spans)


def test_across_the_switch_and_back(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    kamera = make()
    window = kamera.window()
    window.add_image(A)
    second = window.add_image(B)
    assert error(loaded, window, A, B) <= 1e-4
    assert length(window) < SWITCH
    kamera.flush()
    third = window.add_image(C)
    assert length(window) > SWITCH
    assert error(loaded, window, A, B, C) <= 1e-4
    assert {span.origin for span in window.spans} == {"computed"}
    window.drop(third)
    assert max_error(window.reference_logits(QUESTION), window.logits(QUESTION)) <= 1e-4
    assert next(span.origin for span in window.spans if span.id == second) == "recalled"


def test_what_was_lost_is_counted(make: MakeKamera) -> None:
    """The pool's KV where the window grows, and the store's where another one begins long."""
    first = make()
    window = first.window()
    window.add_image(A)
    window.add_image(B)
    short = window.generate(QUESTION, max_new_tokens=1)
    assert short.usage.tokens_switched == 0
    there = length(window)
    window.add_image(C)
    assert window.generate(QUESTION, max_new_tokens=1).usage.tokens_switched == there
    first.flush()
    keys = {header.key for header in first.store.headers()}
    second = make(store=first.store)
    other = second.window()
    images = [other.add_image(image) for image in (A, B, C)]
    usage = other.generate(QUESTION, max_new_tokens=1).usage
    in_store = sum(span.num_tokens for span in other.spans if span.id in images[:2])
    assert (usage.tokens_switched, usage.tokens_recalled, usage.bytes_read) == (in_store, 0, 0)
    second.flush()
    assert {header.key for header in first.store.headers()} == keys, "KV of a long window was remembered"


def test_moved_in_a_long_window(make: MakeKamera) -> None:
    """Keys are turned with the long factors, though the span itself lies before the switch."""
    kamera = make()
    window = kamera.window()
    text = window.add_text("a cook said no")
    moved, *_ = [window.add_image(image) for image in (A, B, C)]
    window.logits(QUESTION)
    window.drop(text)
    window.logits(QUESTION)
    there = next(there for there in window._assembly.residence.residents if there.place.item.id == moved)
    assert there.origin == "moved"
    assert there.place.end_position < SWITCH < length(window)
    pool, (slots,) = window._assembly.residence.pool, there.slots.ranges
    positions = torch.arange(there.place.position, there.place.position + len(slots))
    [bank] = pool.banks
    expected = turned(kamera, bank.masters[:, :, slots.start : slots.stop], positions)
    assert max_error(expected, bank.keys[:, :, slots.start : slots.stop]) <= 1e-5


def turned(kamera: Kamera, masters: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Keys under the long factors, by the published rule (arXiv 2402.13753)."""
    rope = kamera.family.model.config.rope_parameters
    exponents = torch.arange(ROTARY_PAIRS) / ROTARY_PAIRS
    angles = positions[:, None] / (torch.tensor(rope["long_factor"]) * rope["rope_theta"] ** exponents)
    scale = math.sqrt(1 + math.log(rope["factor"]) / math.log(SWITCH))
    cos, sin = angles.cos() * scale, angles.sin() * scale
    first, second, rest = masters.split([ROTARY_PAIRS, ROTARY_PAIRS, masters.shape[-1] - 2 * ROTARY_PAIRS], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def test_a_reply_ends_at_the_switch(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    """And says so; what is asked then goes on in the long window."""
    kamera = make(fidelity="exact")
    window = kamera.window()
    window.add_image(A)
    window.add_image(B)
    reply = window.generate(QUESTION, max_new_tokens=200)
    assert reply.finish_reason == "length"
    assert length(window) == SWITCH
    suppressed = sorted(kamera.family.placeholder_ids)
    expected = Talk(*loaded).say("user", A, B, QUESTION).generate(reply.usage.tokens_generated, suppressed)
    ours = next(item.run.token_ids for item in window._items.live if item.id == reply.span_id)
    assert list(ours) == expected
    assert max_error(window.reference_logits("and now?"), window.logits("and now?")) <= 1e-4


def test_keys_of_chunks_do_not_depend_on_earlier_windows(loaded: tuple[Any, Any], make: MakeKamera) -> None:
    """The rotary embedding keeps the frequencies of its last forward pass."""
    fresh = make().family.image_chunk(A, "default").digest
    positions = torch.arange(SWITCH + 1)[None]
    loaded[0](input_ids=torch.zeros_like(positions), position_ids=positions)
    assert make().family.image_chunk(A, "default").digest == fresh
