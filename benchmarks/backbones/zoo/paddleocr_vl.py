"""PaddleOCR-VL."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration, PaddleOCRVLProcessor
from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil

from benchmarks.backbones.zoo.parts import ODD_PATCH, ODD_PIXELS, TOWER, build, template, text_config, tokenizer

MARKERS = {
    "image_token_id": "<|IMAGE_PLACEHOLDER|>",
    "video_token_id": "<|VIDEO_PLACEHOLDER|>",
    "vision_start_token_id": "<|IMAGE_START|>",
    "vision_end_token_id": "<|IMAGE_END|>",
}
TEMPLATE = template(
    opens={"system": "", "user": "User:\n", "assistant": "Assistant:\n"},
    closes={"system": "\n", "user": "\n", "assistant": "</s>"},
    image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
    start="<|begin_of_sentence|>",
)
VISION = TOWER | {"patch_size": ODD_PATCH, "image_size": 5 * ODD_PATCH}


def paddleocr_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """PaddleOCR-VL."""
    markers = ["<|begin_of_sentence|>", "</s>", *MARKERS.values()]
    words = tokenizer(markers, bos="<|begin_of_sentence|>", eos="</s>", image_token="<|IMAGE_PLACEHOLDER|>")
    rope = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [2, 3, 3]}
    config = PaddleOCRVLConfig(
        text_config=text_config(words, "paddleocr_vl_text", rope_parameters=rope),
        vision_config=VISION,
        tie_word_embeddings=False,
        **{name: words.convert_tokens_to_ids(token) for name, token in MARKERS.items()},
    )
    pixels = PaddleOCRVLImageProcessorPil(**ODD_PIXELS)
    return build(PaddleOCRVLForConditionalGeneration, config, dtype), PaddleOCRVLProcessor(
        pixels, words, chat_template=TEMPLATE
    )
