"""The pocket model loads offline, reads screens, and is a plain checkpoint."""

import json
import socket

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from kamera_agent import Kamera
from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.tasks import ask
from kamera_agent.pocket.tokenizer import build_tokenizer
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.world import World

MIB = 1 << 20


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("make", [Kamera.pocket, lambda: Kamera.from_pretrained("pocket", store=None)])
def test_it_loads_without_a_network_and_answers(make: object) -> None:
    """Every question of a window of two screens and one of two shots."""
    assert callable(make)
    world = World(np.random.default_rng(11))
    right = asked = 0
    with make() as kamera:
        for story in ("links", "moves"):
            pictures = world.window(story, 2)
            window = kamera.window()
            for picture in pictures:
                if isinstance(picture, Screen):
                    window.add_image(draw_screen(picture))
                else:
                    window.add_frames(draw_shot(picture))
            for question in ask(pictures)[:12]:
                kept = [span.id for span in window.spans if span.kind in ("image", "frames")]
                reply = window.generate(question.text, max_new_tokens=4)
                window.sync(kept)
                right, asked = right + (reply.text == question.answer), asked + 1
    assert right / asked >= 0.9


def test_the_auto_classes_take_it() -> None:
    assert AutoConfig.from_pretrained(WEIGHTS).model_type == "qwen2_5_vl"
    model = AutoModelForImageTextToText.from_pretrained(WEIGHTS)
    assert isinstance(model, Qwen2_5_VLForConditionalGeneration)
    assert model.dtype == torch.float32
    assert AutoTokenizer.from_pretrained(WEIGHTS).get_vocab() == build_tokenizer().get_vocab()


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 12 * MIB


def test_its_weights_are_safetensors_and_finite() -> None:
    with safe_open(WEIGHTS / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # the file is not a mapping
            assert bool(file.get_tensor(name).isfinite().all())


def test_the_card_has_the_measured_figures() -> None:
    card = (WEIGHTS / "README.md").read_text()
    report = json.loads((WEIGHTS / "accuracy.json").read_text())
    for look, row in report["accuracy"].items():
        assert look in card
        for task in ("read", "diff", "track"):
            assert f"{row[task]:.3f}" in card
