"""DeepSeek-VL over Llama with as many key/value heads as query heads."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
    DeepseekVLHybridProcessor,
    DeepseekVLProcessor,
)
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl_hybrid.image_processing_pil_deepseek_vl_hybrid import (
    DeepseekVLHybridImageProcessorPil,
)

from benchmarks.backbones.zoo.parts import INITIALIZER_RANGE, build, siglip, template, text_config, tokenizer

BEGIN, END, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"  # noqa: RUF001
TEMPLATE = template(
    opens={"system": "", "user": "User: ", "assistant": "Assistant: "},
    closes={"system": "\n\n", "user": "\n\n", "assistant": END},
    image=IMAGE,
    start=BEGIN,
)
SIZE = {"height": 70, "width": 70}
VISION = siglip(70, 14, vision_use_head=False)
NUM_TOKENS = 25
SAM = {
    "model_type": "sam_vision_model",
    "hidden_size": 32,
    "output_channels": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_dim": 64,
    "image_size": 96,
    "patch_size": 16,
    "window_size": 3,
    "global_attn_indexes": [0, 1],
    "initializer_range": INITIALIZER_RANGE,
}


def deepseek_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """DeepSeek-VL 1.3B."""
    words, common = _parts()
    pixels = DeepseekVLImageProcessorPil(size=SIZE)
    processor = DeepseekVLProcessor(pixels, words, chat_template=TEMPLATE, num_image_tokens=NUM_TOKENS)
    return build(DeepseekVLForConditionalGeneration, DeepseekVLConfig(**common), dtype), processor


def deepseek_vl_hybrid(dtype: torch.dtype) -> tuple[Any, Any]:
    """DeepSeek-VL 7B, whose second tower takes the image in a higher resolution."""
    words, common = _parts()
    pixels = DeepseekVLHybridImageProcessorPil(size=SIZE, high_res_size={"height": 96, "width": 96})
    processor = DeepseekVLHybridProcessor(pixels, words, chat_template=TEMPLATE, num_image_tokens=NUM_TOKENS)
    config = DeepseekVLHybridConfig(high_res_vision_config=SAM, **common)
    return build(DeepseekVLHybridForConditionalGeneration, config, dtype), processor


def _parts() -> tuple[Any, dict[str, Any]]:
    words = tokenizer([BEGIN, END, IMAGE], bos=BEGIN, eos=END, image_token=IMAGE)
    text = text_config(words, "llama", num_key_value_heads=4)
    options = {"image_token_id": words.image_token_id, "tie_word_embeddings": False}
    return words, {"text_config": text, "vision_config": VISION} | options
