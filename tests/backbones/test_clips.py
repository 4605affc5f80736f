"""Clips, against the models' own video paths and what their processors write."""

import copy
from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot
from prompts import Clip, Talk
from rows import Row, named

from kamera_agent import InputError, Kamera, Window

# An odd number of frames, at a rate that makes seconds with decimals.
CLIP = Clip([screenshot(20 + i, 54, 72) for i in range(5)], fps=1.6)
# Of one size with it, so that one rank is full for both.
TWIN = Clip([screenshot(30 + i, 54, 72) for i in range(5)], fps=1.6)
SHORT = Clip([screenshot(40 + i, 72, 36) for i in range(2)], fps=1.6)
IMAGE = screenshot(0, 70, 98)
QUESTION = "what is it?"
QWEN = named("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen2_5_omni_thinker")
GLM = named("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
ROWS = named("paddleocr_vl", "exaone4_5", "video_llama_3", "hyperclovax_vision_v2", "minicpmv4_6")
VIEWS = named("llava_onevision", "internvl", "internvl-qwen3")
SMOL = named("smolvlm")
GEMMA = named("gemma4", "gemma4-k_eq_v")


def fill(window: Window, parts: list[Any]) -> list[str]:
    return [_add(window, part) for part in parts]


def _add(window: Window, part: Any) -> str:
    if isinstance(part, Clip):
        return window.add_frames(part.frames, part.timestamps)
    return window.add_text(part) if isinstance(part, str) else window.add_image(part)


@pytest.mark.parametrize("row", QWEN, indirect=True)
def test_beside_images(row: Row, make: MakeKamera) -> None:
    parts = ["first", IMAGE, CLIP, "then", SHORT, IMAGE]
    reference = Talk(row.model, row.processor).say("user", *parts, QUESTION).logits()
    window = make().window()
    fill(window, parts)
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", GLM, indirect=True)
def test_alone(row: Row, make: MakeKamera) -> None:
    parts = ["first", CLIP, "then", SHORT]
    reference = Talk(row.model, row.processor).say("user", *parts, QUESTION).logits()
    window = make().window()
    fill(window, parts)
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", GLM, indirect=True)
@torch.no_grad()
def test_beside_images_as_images(row: Row, make: MakeKamera) -> None:
    """The model's own forward pass takes no clip beside an image, so its frames are given to it as images."""
    inputs = Talk(row.model, row.processor).say("user", IMAGE, CLIP, QUESTION).inputs()
    with pytest.raises(ValueError, match="features and image tokens do not match"):
        row.model(**inputs)
    (time, height, width) = inputs.pop("video_grid_thw")[0].tolist()
    inputs["pixel_values"] = torch.cat([inputs["pixel_values"], inputs.pop("pixel_values_videos")])
    inputs["image_grid_thw"] = torch.cat([inputs["image_grid_thw"], torch.tensor([[1, height, width]] * time)])
    inputs["mm_token_type_ids"] = inputs["mm_token_type_ids"].clamp(max=1)
    window = make().window()
    fill(window, [IMAGE, CLIP])
    assert max_error(row.model(**inputs).logits[0, -1], window.logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", VIEWS + SMOL, indirect=True)
def test_views(row: Row, make: MakeKamera) -> None:
    """Frames have no tiles. Clips are of one length, and SmolVLM's have no images beside them: more its processor
    and its forward pass do not take."""
    images = [] if row.backbone.name == "smolvlm" else [IMAGE]
    parts = ["first", *images, CLIP, "then", TWIN, *images]
    reference = Talk(row.model, row.processor).say("user", *parts, QUESTION).logits()
    window = make().window()
    fill(window, parts)
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", GEMMA, indirect=True)
def test_frames_of_fewer_tokens(row: Row) -> None:
    """A frame has up to 70 tokens, and an image, here, up to 140."""
    processor = copy.copy(row.processor)
    processor.image_processor = copy.copy(processor.image_processor)
    processor.image_processor.max_soft_tokens = 140
    parts = ["first", IMAGE, CLIP, "then", SHORT, IMAGE]
    reference = Talk(row.model, processor).say("user", *parts, QUESTION).logits()
    with Kamera(row.model, processor) as kamera:
        window = kamera.window()
        image, clip = fill(window, parts)[1:3]
        num_tokens = {span.id: span.num_tokens for span in window.spans}
        assert num_tokens[clip] / len(CLIP.frames) < 0.7 * num_tokens[image]
        assert max_error(reference, window.logits(QUESTION)) <= 1e-4
        assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", named("llava_onevision"), indirect=True)
def test_reference_of_clips_of_several_lengths(make: MakeKamera) -> None:
    window = make().window()
    fill(window, [CLIP, SHORT])
    assert window.logits(QUESTION).isfinite().all()
    with pytest.raises(InputError, match="clips of 5, 2 frames"):
        window.reference_logits(QUESTION)


@pytest.mark.parametrize("row", ROWS, indirect=True)
def test_images_in_a_row(row: Row, make: MakeKamera) -> None:
    """Where the model knows no clips."""
    reference = Talk(row.model, row.processor).say("user", IMAGE, *CLIP.frames, QUESTION).logits()
    window = make().window()
    fill(window, [IMAGE, CLIP])
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@pytest.mark.parametrize("row", QWEN + GLM + VIEWS + SMOL + GEMMA, indirect=True)
def test_moved_and_recalled(row: Row, make: MakeKamera) -> None:
    """Exact after an edit; at full rank as good as a full prefill; blind it is not."""
    window = make(fidelity="exact").window()
    clip, _, other = fill(window, [CLIP, "then", TWIN])
    window.logits(QUESTION)
    window.reorder([other, clip])
    moved = Talk(row.model, row.processor).say("user", TWIN, "then", CLIP, QUESTION).logits()
    assert max_error(moved, window.logits(QUESTION)) <= 1e-4

    reference = Talk(row.model, row.processor).say("user", CLIP, TWIN, QUESTION).logits()
    shapes = make().family.decoder.shapes
    largest = max(shape.keys.num * shape.keys.dim + shape.values.num * shape.values.dim for shape in shapes)
    rank = min(largest, next(span.num_tokens for span in window.spans if span.id == clip))
    first = make(base="canonical", rank=rank)
    fill(seen := first.window(), [CLIP, TWIN])
    seen.logits(QUESTION)
    first.flush()
    fill(again := make(store=first.store, base="canonical", rank=rank).window(), [CLIP, TWIN])
    error = max_error(reference, again.logits(QUESTION))
    assert {span.origin for span in again.spans if span.kind == "frames"} == {"recalled"}
    assert error <= 1e-3
    first.store.delete([header.key for header in first.store.headers() if header.kind == "patch"])
    fill(blind := make(store=first.store, base="canonical", fidelity="blind").window(), [CLIP, TWIN])
    assert max_error(reference, blind.logits(QUESTION)) > 10 * error
