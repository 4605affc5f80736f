"""Gemma 4 in the shapes of its small models and of its large ones."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration, Gemma4Processor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    INITIALIZER_RANGE,
    TOWER,
    build,
    fill_zeros,
    shake_vectors,
    template,
    text_config,
    tokenizer,
    without_video,
)

TEMPLATE = template(
    opens={"system": "<|turn>system\n", "user": "<|turn>user\n", "assistant": "<|turn>model\n"},
    closes=dict.fromkeys(("system", "user", "assistant"), "<turn|>\n"),
    image="<|image|>",
    video="<|video|>",
    start="<bos>",
)
MEDIA = {
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "image_token": "<|image|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "audio_token": "<|audio|>",
}
MARKERS = ["<pad>", "<bos>", "<eos>", "<|turn>", "<turn|>", "<|video|>", *MEDIA.values()]
# Six layers, of which the last two share the KV of the two before them.
LAYERS = ["sliding_attention", "full_attention"] * 3
SHARED = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8}
# Full layers with fewer heads, whose values are their keys without a scale; images both ways.
K_EQ_V = {
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "use_bidirectional_attention": "vision",
    "hidden_size_per_layer_input": 0,
}
# An image has 63 to 70 tokens.
SIZES = {"patch_size": 4, "pooling_kernel_size": 3}
SOFT_TOKENS = 70


def gemma4(dtype: torch.dtype) -> tuple[Any, Any]:
    """Gemma 4 E2B and E4B: shared layers, embeddings for each layer, images that are seen one way."""
    return _gemma4(dtype, SHARED)


def gemma4_k_eq_v(dtype: torch.dtype) -> tuple[Any, Any]:
    """Gemma 4 31B. Its sliding window is shorter than an image, so it cuts the two-way attention within an image."""
    return _gemma4(dtype, K_EQ_V)


def _gemma4(dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, Any]:
    words = tokenizer(MARKERS, bos="<bos>", eos="<eos>", pad_token="<pad>", **MEDIA)
    shape = {
        "num_hidden_layers": len(LAYERS),
        "layer_types": LAYERS,
        "sliding_window": 40,
        "head_dim": 24,
        "global_head_dim": 48,
        "vocab_size_per_layer_input": len(words),
        "final_logit_softcapping": 30.0,
        "pad_token_id": words.pad_token_id,
    }
    config = Gemma4Config(
        text_config=text_config(words, "gemma4_text", **shape, **options),
        vision_config=TOWER | SIZES | {"num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 64},
        image_token_id=words.image_token_id,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
        video_token_id=words.convert_tokens_to_ids("<|video|>"),
        audio_token_id=words.audio_token_id,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=False,
    )
    processor = without_video(Gemma4Processor)(
        feature_extractor=None,
        image_processor=Gemma4ImageProcessorPil(**SIZES, max_soft_tokens=SOFT_TOKENS),
        tokenizer=words,
        video_processor=None,
        chat_template=TEMPLATE,
    )
    model = build(Gemma4ForConditionalGeneration, config, dtype)
    return shake_vectors(fill_zeros(model, "position_embedding_table")), processor
