"""A model or processor that is changed after it was loaded is not answered from KV of before."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import max_error, screenshot

from kamera_agent import Kamera, ModelError
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import load

QUESTION = "where is anna?"
Undo = Callable[[], object]


@pytest.fixture
def kamera() -> Kamera:
    """One whose model nobody else has. Its window has answered, and its chunk is stored."""
    kamera = Kamera(*copy.deepcopy(load(str(WEIGHTS), device="cpu")))
    see(kamera)
    kamera.flush()
    return kamera


def see(kamera: Kamera) -> torch.Tensor:
    window = kamera.window()
    window.add_image(screenshot(0, 56, 84))
    logits = window.logits(QUESTION)
    assert max_error(window.reference_logits(QUESTION), logits) < 1e-2
    return logits


def a_weight(kamera: Kamera) -> Undo:
    weight = next(weight for weight in kamera.family.text_model.parameters() if weight.ndim == 2)
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)

    def undo() -> None:
        with torch.no_grad():
            weight.copy_(before)

    return undo


def the_dtype(kamera: Kamera) -> Undo:
    kamera.family.model.double()
    return kamera.family.model.float


def colours(kamera: Kamera) -> Undo:
    processor = kamera.family.processors.image_processor
    before, processor.image_mean = processor.image_mean, [0.0, 0.1, 0.2]
    return lambda: setattr(processor, "image_mean", before)


def sizes(kamera: Kamera) -> Undo:
    processor = kamera.family.processors.image_processor
    before, processor.size = processor.size, {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    return lambda: setattr(processor, "size", before)


@pytest.mark.parametrize("change", [a_weight, the_dtype, colours, sizes])
def test_a_change_is_refused_until_it_is_undone(kamera: Kamera, change: Callable[[Kamera], Undo]) -> None:
    before = see(kamera)
    undo = change(kamera)
    for _ in range(2):
        with pytest.raises(ModelError, match="make a new Kamera"):
            see(kamera)
    undo()
    assert torch.equal(see(kamera), before)


def test_a_new_kamera_over_the_changed_model_answers(kamera: Kamera) -> None:
    store = kamera.store
    a_weight(kamera)
    other = Kamera(kamera.family.model, kamera.family.processors, store)
    window = other.window()
    window.add_image(screenshot(0, 56, 84))
    window.logits(QUESTION)
    assert [span.origin for span in window.spans if span.kind == "image"] == ["computed"]
    see(other)


def test_adapters(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is added, switched off and on."""
    peft: Any = pytest.importorskip("peft")
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.18.0")
    model = kamera.family.model
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False), "one")
    with pytest.raises(ModelError, match="adapters"):
        see(kamera)
    other = Kamera(model, kamera.family.processors)
    see(other)
    model.disable_adapters()
    with pytest.raises(ModelError, match="adapters"):
        see(other)
    model.enable_adapters()
    see(other)
