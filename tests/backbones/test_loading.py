"""Kamera.from_pretrained on what a small model and its processor were saved as."""

import copy
from pathlib import Path

import pytest
import torch
from models import max_error, screenshot
from prompts import Talk
from rows import Row, rows

from kamera_agent import Kamera

IMAGE, QUESTION = screenshot(0, 70, 98), "what is it?"


def save(row: Row, folder: Path) -> None:
    """The model, and its processor; without torchvision some can be saved in parts only, as they lie in checkpoints."""
    row.model.save_pretrained(folder)
    if getattr(row.processor, "video_processor", row.processor) is None or not hasattr(
        row.processor, "save_pretrained"
    ):
        row.processor.image_processor.save_pretrained(folder)
        tokenizer = copy.copy(row.processor.tokenizer)
        tokenizer.chat_template = row.processor.chat_template
        tokenizer.save_pretrained(folder)
    else:
        row.processor.save_pretrained(folder)


@pytest.mark.parametrize("row", rows("fp32"), indirect=True)
def test_from_pretrained(row: Row, tmp_path: Path) -> None:
    """Where torchvision is missing, as here, a family does with the parts that can be loaded."""
    save(row, tmp_path)
    with Kamera.from_pretrained(str(tmp_path), device="cpu", dtype=torch.float32) as kamera:
        window = kamera.window()
        window.add_image(IMAGE)
        reference = Talk(row.model, row.processor).say("user", IMAGE, QUESTION).logits()
        assert max_error(reference, window.logits(QUESTION)) <= 1e-4
