"""Clips of Kimi K2.5, as its processor says that it writes them."""

from typing import Any

import pytest
import torch
from models import MakeKamera, max_error, screenshot
from prompts import Clip
from rows import Row, named

QUESTION = "what is it?"
IMAGE = screenshot(0, 70, 98)
CLIP = Clip([screenshot(20 + i, 54, 72) for i in range(6)], fps=1.6)
GROUPS = [("00:00:00.000", 4), ("00:00:02.500", 2)]


@torch.no_grad()
def full_prefill(row: Row) -> torch.Tensor:
    """Logits behind an image and a clip, put together by hand: four frames become one."""
    model, words, pixels = row.model, row.processor.tokenizer, row.processor.image_processor
    frames = pixels(images=CLIP.frames, return_tensors="pt")
    image = pixels(images=[IMAGE], return_tensors="pt")
    _, height, width = frames["image_grid_thw"][0].tolist()
    pieces: list[Any] = ["<|im_user|>user<|im_middle|>", "<|media_begin|>image<|media_content|>"]
    pieces += ["<|media_pad|>" * (image["image_grid_thw"][0].prod() // 4).item(), "<|media_end|>"]
    for clock, _ in GROUPS:
        pieces += [f"{clock}<|media_begin|>video<|media_content|>"]
        pieces += ["<|kimi_k25_video_placeholder|>" * (height * width // 4), "<|media_end|>"]
    pieces += [QUESTION, "<|im_end|><|im_assistant|>assistant<|im_middle|>"]
    ids = [token for piece in pieces for token in words(piece, add_special_tokens=False)["input_ids"]]
    return model(
        input_ids=torch.tensor([ids]),
        pixel_values=image["pixel_values"],
        image_grid_thw=image["image_grid_thw"],
        pixel_values_videos=frames["pixel_values"],
        video_grid_thw=torch.tensor([[count, height, width] for _, count in GROUPS]),
        use_cache=False,
    ).logits[0, -1]


@pytest.mark.parametrize("row", named("kimi_k25"), indirect=True)
def test_clip(row: Row, make: MakeKamera) -> None:
    reference = full_prefill(row)
    window = make().window()
    window.add_image(IMAGE)
    window.add_frames(CLIP.frames, CLIP.timestamps)
    assert max_error(reference, window.logits(QUESTION)) <= 1e-4
    assert max_error(reference, window.reference_logits(QUESTION)) <= 1e-4
