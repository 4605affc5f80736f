"""Healing on every kind of attention: GQA, MHA, MLA, sliding windows, and images that see both ways."""

from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot
from prompts import Talk
from rows import Row, rows

from benchmarks.backbones.zoo.phi4_multimodal import phi4_multimodal
from kamera_agent import Kamera, Window

A, B, C, D = (screenshot(seed, *size) for seed, size in enumerate([(70, 98), (126, 84), (84, 154), (70, 98)]))
QUESTION = "what is it?"


def filled(kamera: Kamera) -> tuple[Window, list[str]]:
    window = kamera.window()
    ids = [window.add_image(A), window.add_text("then"), window.add_image(B), window.add_image(C)]
    window.logits(QUESTION)
    return window, ids


def error(row: Row, window: Window, *parts: Any) -> float:
    assert all(span.exact for span in window.spans)
    reference = Talk(row.model, row.processor).say("user", *parts, QUESTION)
    return max_error(reference.logits(), window.logits(QUESTION))


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_healed_is_exact(row: Row, make: MakeKamera) -> None:
    kamera = make(heal="idle", stale="keep")
    window, (a, *_) = filled(kamera)
    window.drop(a)
    window.logits(QUESTION)
    assert kamera.settle()
    assert error(row, window, "then", B, C) <= 1e-4


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_healed_ahead_is_exact(row: Row, make: MakeKamera) -> None:
    kamera = make(heal="ahead", stale="keep")
    window, (_, then, b, c) = filled(kamera)
    window.expect([c, then, b])
    assert kamera.settle()
    window.sync([c, then, b])
    assert {row.origin for row in window.plan().rows} == {"kept"}
    window.add_image(D)
    window.logits(QUESTION)
    assert error(row, window, C, "then", B, D) <= 1e-4


def test_a_window_beyond_the_switch_of_its_rope_is_left_as_it_is() -> None:
    with Kamera(*phi4_multimodal(torch.float32, switch=60), heal="ahead", stale="keep") as kamera:
        window, ids = filled(kamera)
        window.drop(ids[0])
        window.logits(QUESTION)
        assert kamera.settle()
        assert kamera.stats().healed_tokens == 0
