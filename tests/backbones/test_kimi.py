"""Clips of Kimi K2.5, as its processor says that it writes them."""

from typing import Any

import pytest
import torch
import transformers
from models import MakeKamera, max_error, screenshot
from packaging.version import Version
from prompts import Clip
from rows import Row, named

from kamera_agent.vision.frames import stack_frames

QUESTION = "what is it?"
IMAGE = screenshot(0, 70, 98)
FRAMES = [screenshot(20 + i, 54, 72) for i in range(8)]
CLOCKS = ["00:00:00.000", "00:00:02.500"]


@torch.no_grad()
def full_prefill(row: Row, clip: Clip) -> torch.Tensor:
    """Logits after an image and a clip, put together by hand: four frames become one."""
    groups = [clip.frames[:4], clip.frames[4:]] if len(clip.frames) > 4 else [clip.frames]
    model, words, pixels = row.model, row.processor.tokenizer, row.processor.image_processor
    frames = pixels(images=clip.frames, return_tensors="pt")
    image = pixels(images=[IMAGE], return_tensors="pt")
    _, height, width = frames["image_grid_thw"][0].tolist()
    pieces: list[Any] = ["<|im_user|>user<|im_middle|>", "<|media_begin|>image<|media_content|>"]
    pieces += ["<|media_pad|>" * (image["image_grid_thw"][0].prod() // 4).item(), "<|media_end|>"]
    for clock, _ in zip(CLOCKS, groups, strict=False):
        pieces += [f"{clock}<|media_begin|>video<|media_content|>"]
        pieces += ["<|kimi_k25_video_placeholder|>" * (height * width // 4), "<|media_end|>"]
    pieces += [QUESTION, "<|im_end|><|im_assistant|>assistant<|im_middle|>"]
    ids = [token for piece in pieces for token in words(piece, add_special_tokens=False)["input_ids"]]
    return model(
        input_ids=torch.tensor([ids]),
        pixel_values=image["pixel_values"],
        image_grid_thw=image["image_grid_thw"],
        pixel_values_videos=frames["pixel_values"],
        video_grid_thw=torch.tensor([[len(group), height, width] for group in groups]),
        use_cache=False,
    ).logits[0, -1]


# The model's own forward pass cannot take apart what it pooled before.
@pytest.mark.skipif(Version(transformers.__version__) < Version("5.24"), reason="clips came right with 5.24")
@pytest.mark.parametrize("num_frames", [8, 3])
@pytest.mark.parametrize("row", named("kimi_k25"), indirect=True)
def test_clip(row: Row, make: MakeKamera, num_frames: int) -> None:
    clip = Clip(FRAMES[:num_frames], fps=1.6)
    reference = full_prefill(row, clip)
    window = make().window()
    window.add_image(IMAGE)
    window.add_frames(clip.frames, clip.timestamps)
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("row", named("kimi_k25"), indirect=True)
def test_a_rest_of_frames(row: Row, make: MakeKamera) -> None:
    """The last group may be shorter: its features are those that it has alone."""
    kamera = make()
    whole, rest = (kamera.family.frames_chunk(stack_frames(frames, None), "") for frames in (FRAMES[:6], FRAMES[4:6]))
    features = kamera.family.encode(whole)
    assert max_error(kamera.family.encode(rest), features[len(features) // 2 :]) <= 1e-5
