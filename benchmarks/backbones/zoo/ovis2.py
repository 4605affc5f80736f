"""Ovis2 over Qwen2."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Ovis2Processor
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    HIDDEN,
    TOWER,
    build,
    chatml,
    text_config,
    tokenizer,
)

# As in the public template, a line break follows an image.
TEMPLATE = chatml(image="<image>\n")
TILE, PATCH = 56, 14
MARKS = ["<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"]
VISION = TOWER | {"image_size": TILE, "patch_size": PATCH, "hidden_stride": 2, "vocab_size": 69}


def ovis2(dtype: torch.dtype) -> tuple[Any, Any]:
    """Ovis2."""
    words = tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<IMG_ATOM>", *MARKS], bos=None, eos="<|im_end|>")
    config = Ovis2Config(
        text_config=text_config(words, "qwen2"),
        vision_config=VISION,
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(MARKS),
        vocab_size=len(words),
        hidden_size=HIDDEN,
        tie_word_embeddings=False,
    )
    pixels = Ovis2ImageProcessorPil(size={"height": TILE, "width": TILE}, crop_to_patches=True, max_patches=4)
    processor = Ovis2Processor(image_processor=pixels, tokenizer=words, image_seq_length=4, chat_template=TEMPLATE)
    return build(Ovis2ForConditionalGeneration, config, dtype), processor
