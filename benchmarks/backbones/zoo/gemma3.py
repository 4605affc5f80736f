"""Gemma 3 with its vision tower."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from benchmarks.backbones.zoo.parts import INITIALIZER_RANGE, build, fill_zeros, template, text_config, tokenizer

TEMPLATE = template(
    opens={"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
    closes={"user": "<end_of_turn>\n", "assistant": "<end_of_turn>\n"},
    image="<start_of_image>",
    start="<bos>",
)
MARKERS = [
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
]
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 84,
    "patch_size": 14,
    "vision_use_head": False,
}
TOKENS_PER_IMAGE = 9


def gemma3(dtype: torch.dtype) -> tuple[Any, Any]:
    """Gemma 3. Its sliding window is shorter than an image, so it cuts the two-way attention within an image."""
    words = tokenizer(
        MARKERS,
        bos="<bos>",
        eos="<eos>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    config = Gemma3Config(
        text_config=text_config(
            words,
            "gemma3_text",
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            sliding_window=TOKENS_PER_IMAGE - 1,
            query_pre_attn_scalar=16,
        ),
        vision_config=SIGLIP,
        mm_tokens_per_image=TOKENS_PER_IMAGE,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 84, "width": 84}),
        tokenizer=words,
        image_seq_length=TOKENS_PER_IMAGE,
        chat_template=TEMPLATE,
    )
    return fill_zeros(build(Gemma3ForConditionalGeneration, config, dtype), "mm_input_projection_weight"), processor
