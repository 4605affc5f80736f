"""Models whose layers are on two devices, and models whose weights come to a device for each pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from models import max_error, screenshot
from prompts import Talk

from benchmarks.backbones.zoo import MATRIX
from kamera_agent import Kamera
from kamera_agent.errors import ModelError, UnsupportedModelError

QUESTION = "what is it?"
HERE = Path(__file__).parent
# Embeddings added in later layers, three axes of positions; sliding layers, layers that read the KV of others.
NAMES = ("qwen3_vl", "gemma3n")


def build(name: str) -> tuple[Any, Any]:
    return next(one for one in MATRIX if one.name == name).build(torch.float32)


@pytest.fixture(scope="module", params=NAMES)
def outcome(request: pytest.FixtureRequest) -> Any:
    """From a process of its own: the devices are a backend in Python, which cannot be taken back."""
    path = [str(HERE), str(HERE.parent), *sys.path]
    child = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; import devices_child as child; child.run()"],
        input=request.param,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return json.loads(child.stdout.splitlines()[-1])


def test_windows_are_those_of_one_device(outcome: Any) -> None:
    """An operation on tensors of two devices would have failed."""
    assert outcome["plain"] <= 1e-4
    assert outcome["errors"].keys() == {"computed", "refreshed", "recalled", "moved"}
    assert max(outcome["errors"].values()) <= 1e-4
    assert outcome["same_reply"]
    assert outcome["origins"] == ["recalled", "computed", "moved", "moved"]


def test_kv_is_where_its_layer_is(outcome: Any) -> None:
    for layer, devices in outcome["devices"].items():
        assert devices == [f"pretended:{int(int(layer) >= outcome['split'])}"] * 3


def test_a_pass_crosses_once_and_never_reads_back(outcome: Any) -> None:
    """Hidden states, positions, tables and masks go to the second device; only indices come from the host."""
    crossings = outcome["crossings"]
    assert crossings["pretended:0 pretended:1"] > 0
    assert not any(crossing.endswith(" cpu") for crossing in crossings)


def test_offloaded_to_the_host() -> None:
    model, processor = build("qwen2_5_vl")
    image = screenshot(0, 70, 98)
    expected = Talk(model, processor).say("user", image, QUESTION).logits()
    before = Kamera(model, processor, store=None)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    kamera = Kamera(model, processor, store=None)
    assert kamera.family.identity == before.family.identity
    window = kamera.window()
    window.add_image(image)
    assert max_error(expected, window.logits(QUESTION)) <= 1e-4
    weights = model.model.language_model.layers[0].self_attn.q_proj._hf_hook.weights_map
    weights["weight"].mul_(2)
    with pytest.raises(ModelError, match="changed after the model was loaded"):
        window.logits("and now?")


def test_a_recurrent_state_does_not_cross() -> None:
    model, processor = build("qwen3_5")
    for part in model.model.language_model.layers[-1].modules():
        # Another name of the device: nothing else is here.
        add_hook_to_module(part, AlignDevicesHook("cpu:0"))
    with pytest.raises(UnsupportedModelError, match="recurrent layers are not folded across devices"):
        Kamera(model, processor)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_two_gpus(name: str) -> None:
    model, processor = build(name)
    images = [screenshot(seed, 70, 98) for seed in range(2)]
    expected = Talk(model, processor).say("user", *images, QUESTION).logits()
    text = model.model.language_model
    parts = {f"model.{part}": 0 for part, _ in model.model.named_children() if part != "language_model"}
    parts |= {f"model.language_model.{part}": 0 for part, _ in text.named_children() if part != "layers"}
    parts |= {f"model.language_model.layers.{n}": 2 * n // len(text.layers) for n in range(len(text.layers))}
    dispatch_model(model, {**parts, "model.language_model.norm": 1, "lm_head": 1}, skip_keys="past_key_values")
    window = Kamera(model, processor, store=None, fidelity="exact").window()
    for image in images:
        window.add_image(image)
    assert max_error(expected, window.logits(QUESTION).cpu()) <= 1e-3
