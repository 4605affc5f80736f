"""LLaVA over text models of every attention."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from benchmarks.backbones.zoo.parts import INITIALIZER_RANGE, LATENT, build, template, text_config, tokenizer

TEMPLATE = template(
    opens={"system": "", "user": "USER:\n", "assistant": "ASSISTANT:\n"},
    closes={"system": "\n", "user": "\n", "assistant": "</s>"},
    image="<image>",
    start="<s>",
)
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 70,
    "patch_size": 14,
    "initializer_range": INITIALIZER_RANGE,
}


def llava(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA 1.5: CLIP before Llama with as many key/value heads as query heads."""
    return _llava("llama", dtype, num_key_value_heads=4)


def llava_deepseek_v2(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA over DeepSeek-V2, whose latent keys turn in neighbouring pairs."""
    return _llava("deepseek_v2", dtype, **LATENT)


def llava_deepseek_v3(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA over DeepSeek-V3."""
    return _llava("deepseek_v3", dtype, **LATENT)


def _llava(text_model: str, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    words = tokenizer(["<s>", "</s>", "<image>"], bos="<s>", eos="</s>", image_token="<image>")
    config = LlavaConfig(
        text_config=text_config(words, text_model, **options),
        vision_config=CLIP,
        image_token_index=words.image_token_id,
        image_seq_length=25,
    )
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 70}, crop_size={"height": 70, "width": 70})
    processor = LlavaProcessor(
        image_processor=pixels,
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return build(LlavaForConditionalGeneration, config, dtype), processor
