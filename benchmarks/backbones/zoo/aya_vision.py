"""Aya Vision and Command A Vision over Cohere 2: three sliding layers per full layer; full layers have no RoPE."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    AyaVisionProcessor,
    Cohere2VisionConfig,
    Cohere2VisionForConditionalGeneration,
    Cohere2VisionProcessor,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from benchmarks.backbones.zoo.parts import build, siglip, template, text_config, tokenizer

TURN, END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
ROLES = {"system": "<|SYSTEM_TOKEN|>", "user": "<|USER_TOKEN|>", "assistant": "<|CHATBOT_TOKEN|>"}
TEMPLATE = template(
    opens={role: TURN + token for role, token in ROLES.items()},
    closes=dict.fromkeys(ROLES, END),
    image="<image>",
    start="<BOS_TOKEN>",
)
TILE, PATCH = 56, 14
IMAGE = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"]
TILES = ["TILE_GLOBAL", *[f"TILE_{number}" for number in range(1, 7)]]


def aya_vision(dtype: torch.dtype) -> tuple[Any, Any]:
    """Aya Vision."""
    markers = ["<BOS_TOKEN>", "<PAD>", TURN, END, *ROLES.values(), *IMAGE, *TILES]
    words = tokenizer(markers, bos="<BOS_TOKEN>", eos=END, pad_token="<PAD>")
    text = text_config(words, "cohere2", sliding_window=40, pad_token_id=words.pad_token_id)
    config = AyaVisionConfig(
        text_config=text,
        vision_config=siglip(TILE, PATCH, vision_use_head=False),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        tie_word_embeddings=False,
    )
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, max_patches=6),
        tokenizer=words,
        patch_size=PATCH,
        img_size=TILE,
        downsample_factor=2,
        chat_template=TEMPLATE,
    )
    return build(AyaVisionForConditionalGeneration, config, dtype), processor


class CommandPixels(GotOcr2ImageProcessorPil):
    """Stands in for Cohere2VisionImageProcessor, which needs torchvision and may choose other tiles for an image.

    patch_size: the tokens along the side of a tile, as there.
    """

    crop_to_patches = True
    patch_size = TILE // PATCH // 2


def cohere2_vision(dtype: torch.dtype) -> tuple[Any, Any]:
    """Command A Vision. A token ends each tile."""
    marks = {
        "image_token": "<|IMG_PATCH|>",
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    turns = ["<BOS_TOKEN>", "<PAD>", TURN, END, *ROLES.values()]
    words = tokenizer([*turns, *marks.values()], bos="<BOS_TOKEN>", eos=END, pad_token="<PAD>", **marks)
    config = Cohere2VisionConfig(
        text_config=text_config(words, "cohere2", sliding_window=40, pad_token_id=words.pad_token_id),
        vision_config=siglip(TILE, PATCH, vision_use_head=False),
        image_token_id=words.image_token_id,
        alignment_intermediate_size=64,
        tie_word_embeddings=False,
    )
    pixels = CommandPixels(size={"height": TILE, "width": TILE}, max_patches=6)
    processor = Cohere2VisionProcessor(pixels, words, chat_template=TEMPLATE.replace("<image>", words.image_token))
    return build(Cohere2VisionForConditionalGeneration, config, dtype), processor
