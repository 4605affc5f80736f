"""Adapters that a checkpoint brings along."""

from pathlib import Path

import pytest
import torch
from models import max_error, screenshot
from peft import LoraConfig
from prompts import Talk

from benchmarks.backbones.zoo.phi4_multimodal import phi4_multimodal
from kamera_agent import Kamera
from kamera_agent.runtime.families.phi4_multimodal import Phi4Multimodal

QUESTION = "what is it?"
ADAPTED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def test_vision_adapter_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phi-4 sees through an adapter that lies beside its weights; keys before RoPE are those with it."""
    # transformers 5.24 asks for a release of peft that not every registry has; what is used here is older.
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.18.0")
    model, processor = phi4_multimodal(torch.float32)
    picture = screenshot(0, 70, 98)
    without = Talk(model, processor).say("user", picture, QUESTION).logits()
    model.save_pretrained(tmp_path)
    model.add_adapter(LoraConfig(r=4, target_modules=ADAPTED, init_lora_weights=False), "vision")
    model.eval()
    adapted = Talk(model, processor).say("user", picture, QUESTION).logits()
    assert max_error(without, adapted) > 0.1
    model.save_pretrained(tmp_path / "vision-lora")

    loaded = Phi4Multimodal.auto_model.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="sdpa")
    with Kamera(loaded, processor, rank=31) as kamera:
        assert kamera.family.identity.model["adapters"] == [["vision"], ["vision"]]
        first = kamera.window()
        first.add_image(picture)
        assert max_error(adapted, first.logits(QUESTION)) <= 1e-4
        kamera.flush()
        other = kamera.window()
        other.add_image(picture)
        assert max_error(adapted, other.logits(QUESTION)) <= 1e-3
        assert [span.origin for span in other.spans if span.kind == "image"] == ["recalled"]
