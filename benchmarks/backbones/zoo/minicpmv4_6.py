"""MiniCPM-V 4.6."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from transformers import MiniCPMV4_6Config, MiniCPMV4_6ForConditionalGeneration, MiniCPMV4_6Processor
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    DELTA,
    TOWER,
    build,
    chatml,
    remembering,
    text_config,
    tokenizer,
    without_video,
)

MARKERS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}
# 16 patches become one token. The test images are cut into slices.
PATCH, SIDE = 4, 48
VISION = TOWER | {"image_size": SIDE, "patch_size": PATCH}


def minicpmv4_6(dtype: torch.dtype) -> tuple[Any, Any]:
    """MiniCPM-V 4.6. Its processor writes no numbers of images, and has no part for clips, which needs torchvision."""
    words = tokenizer(
        ["<|im_start|>", "<|im_end|>", *MARKERS.values()], bos=None, eos="<|im_end|>", pad_token="<|im_end|>", **MARKERS
    )
    config = MiniCPMV4_6Config(
        text_config=text_config(words, "qwen3_5_text") | DELTA,
        vision_config=VISION,
        insert_layer_id=0,
        image_size=SIDE,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    pixels = MiniCPMV4_6ImageProcessorPil(patch_size=PATCH, scale_resolution=SIDE, max_slice_nums=3, use_image_id=False)
    clips = SimpleNamespace(slice_mode=False, downsample_mode=pixels.downsample_mode)
    processor = without_video(MiniCPMV4_6Processor)(pixels, clips, words, chat_template=chatml(image="<|image_pad|>"))
    processor.video_processor = None
    return remembering(build(MiniCPMV4_6ForConditionalGeneration, config, dtype)), processor
