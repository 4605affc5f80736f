"""Kamera.from_pretrained on what a small model and its processor were saved as."""

import copy
from pathlib import Path

import pytest
import torch
from models import max_error, screenshot
from prompts import Talk
from rows import Row, rows
from transformers import (
    AutoConfig,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen3OmniMoeConfig,
    Qwen3OmniMoeForConditionalGeneration,
)

from benchmarks.backbones.zoo.qwen_vl import qwen2_5_omni, qwen3_omni_moe
from benchmarks.backbones.zoo.text_only import text_only
from kamera_agent import Kamera, ModelError
from kamera_agent.runtime.families import family_for

# Their image processors come for torchvision only, or their vision towers for timm.
BLIND_WITHOUT = {
    "phi4_multimodal": "torchvision",
    "kimi_k25": "torchvision",
    "lfm2_vl": "torchvision",
    "step3p7": "torchvision",
    "cohere2_vision": "torchvision",
    "gemma3n": "timm",
}
# transformers loads a tokenizer of its own for them, which cuts other words than the small one that was saved.
OTHER_WORDS = ("qwen3_5", "qwen3_5_moe", "hyperclovax_vision_v2")
IMAGE, QUESTION = screenshot(0, 70, 98), "what is it?"


def save(row: Row, folder: Path) -> None:
    """The model, and its processor; without torchvision some can be saved in parts only, as they lie in checkpoints."""
    row.model.save_pretrained(folder)
    has_all = hasattr(row.processor, "save_pretrained") and all(
        getattr(row.processor, part) is not None for part in row.processor.get_attributes()
    )
    if not has_all:
        row.processor.image_processor.save_pretrained(folder)
        tokenizer = copy.copy(row.processor.tokenizer)
        tokenizer.chat_template = row.processor.chat_template
        tokenizer.save_pretrained(folder)
    else:
        row.processor.save_pretrained(folder)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_from_pretrained(row: Row, tmp_path: Path) -> None:
    """Where torchvision and timm are missing, as here, a family does with the parts that can be loaded."""
    save(row, tmp_path)
    if package := BLIND_WITHOUT.get(row.backbone.name):
        with pytest.raises(ModelError, match=f"pip install {package}"):
            Kamera.from_pretrained(str(tmp_path), store=None, device="cpu")
        return
    with Kamera.from_pretrained(str(tmp_path), store=None, device="cpu", dtype=torch.float32) as kamera:
        window = kamera.window()
        window.add_image(IMAGE)
        if row.backbone.name.partition("-")[0] in OTHER_WORDS:
            assert max_error(window.reference_logits(QUESTION), window.logits(QUESTION)) <= 1e-4
            return
        reference = Talk(row.model, row.processor).say("user", IMAGE, QUESTION).logits()
        assert max_error(reference, window.logits(QUESTION)) <= 1e-4
        chunks = [
            family.image_chunk(IMAGE, "default") for family in (kamera.family, family_for(row.model, row.processor))
        ]
        assert chunks[0].key == chunks[1].key


WHOLES = {
    "qwen2_5_omni": (qwen2_5_omni, Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration),
    "qwen3_omni_moe": (qwen3_omni_moe, Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration),
}


@pytest.mark.parametrize("model_type", WHOLES)
def test_thinker_of_a_whole(model_type: str, tmp_path: Path) -> None:
    """A checkpoint of all of Qwen2.5-Omni or Qwen3-Omni, as the public ones are: its thinker is loaded."""
    build, config_class, model_class = WHOLES[model_type]
    thinker, processor = build(torch.float32)
    whole = model_class(config_class(thinker_config=thinker.config.to_dict(), enable_audio_output=False))
    whole.thinker.load_state_dict(thinker.state_dict())
    save(Row(None, whole, processor, torch.float32), tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == model_type
    with Kamera.from_pretrained(tmp_path, store=None, device="cpu", dtype=torch.float32) as kamera:
        window = kamera.window()
        window.add_image(IMAGE)
        reference = Talk(thinker, processor).say("user", IMAGE, QUESTION).logits()
        assert max_error(reference, window.logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("model_type", ["gemma2", "gpt_oss", "deepseek_v3"])
def test_text_models(model_type: str, tmp_path: Path) -> None:
    """gpt_oss has no sdpa."""
    model, processor = text_only(model_type, torch.float32)
    for part in (model, processor.tokenizer):
        part.save_pretrained(tmp_path)
    with Kamera(model, processor) as expected, Kamera.from_pretrained(tmp_path, store=None, device="cpu") as kamera:
        assert max_error(expected.window().logits(QUESTION), kamera.window().logits(QUESTION)) <= 1e-4


def test_a_tokenizer_is_enough_without_eyes() -> None:
    model, processor = text_only("llama", torch.float32)
    with Kamera(model, processor) as whole, Kamera(model, processor.tokenizer) as kamera:
        keys = {one.family.document_chunk("rent 5, tax 7", "default").key for one in (whole, kamera)}
        assert len(keys) == 1
        windows = whole.window(), kamera.window()
        assert torch.equal(*(window.logits(QUESTION) for window in windows))


def test_a_tokenizer_is_not_enough_with_eyes() -> None:
    model, processor = qwen2_5_omni(torch.float32)
    with pytest.raises(ModelError, match=r"has no image_processor. Pass what AutoProcessor"):
        Kamera(model, processor.tokenizer)
