"""LLaVA over text models of each kind of attention, LLaVA-NeXT and LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    LATENT,
    TOWER,
    build,
    chatml,
    siglip,
    template,
    text_config,
    tokenizer,
    without_video,
)

TEMPLATE = template(
    opens={"system": "", "user": "USER: ", "assistant": "ASSISTANT: "},
    closes={"system": " ", "user": " ", "assistant": "</s>"},
    image="<image>",
    start="<s>",
)
# As in the public template, a line break follows an image.
ONEVISION_TEMPLATE = chatml(image="<image>\n", video="<video>\n")
CLIP = TOWER | {"model_type": "clip_vision_model", "num_hidden_layers": 3, "image_size": 70, "patch_size": 14}
# Options by which a processor counts the tokens of CLIP without its class token.
CLASS_TOKEN = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
    "chat_template": TEMPLATE,
}
# Side of a tile in pixels: 3 patches.
TILE = 42
GRIDS = [[TILE, 2 * TILE], [2 * TILE, TILE], [TILE, 3 * TILE]]


def llava(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA 1.5: CLIP, and Llama with as many key/value heads as query heads."""
    return _llava("llama", dtype, num_key_value_heads=4)


def llava_deepseek_v2(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA over DeepSeek-V2, whose RoPE rotates neighbouring pairs of the latent keys."""
    return _llava("deepseek_v2", dtype, **LATENT)


def llava_deepseek_v3(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA over DeepSeek-V3."""
    return _llava("deepseek_v3", dtype, **LATENT)


def _llava(text_model: str, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    words = _words()
    config = LlavaConfig(
        text_config=text_config(words, text_model, **options),
        vision_config=CLIP,
        image_token_index=words.image_token_id,
        image_seq_length=25,
    )
    return build(LlavaForConditionalGeneration, config, dtype), _processor(words)


def _words() -> PreTrainedTokenizerFast:
    return tokenizer(["<s>", "</s>", "<image>"], bos="<s>", eos="</s>", image_token="<image>")


def _processor(words: PreTrainedTokenizerFast) -> LlavaProcessor:
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 70}, crop_size={"height": 70, "width": 70})
    return LlavaProcessor(image_processor=pixels, tokenizer=words, **CLASS_TOKEN)


def vipllava(dtype: torch.dtype) -> tuple[Any, Any]:
    """ViP-LLaVA, which joins the features of several layers of CLIP."""
    words = _words()
    config = VipLlavaConfig(
        text_config=text_config(words, "llama", num_key_value_heads=4),
        vision_config=CLIP,
        image_token_index=words.image_token_id,
        vision_feature_layer=[-2, 1],
        image_seq_length=25,
    )
    return build(VipLlavaForConditionalGeneration, config, dtype), _processor(words)


def llava_next(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA-NeXT over Mistral: a base view, and tiles whose rows end in a newline token."""
    words = _words()
    config = LlavaNextConfig(
        text_config=text_config(words, "mistral", sliding_window=None),
        vision_config=CLIP | {"image_size": TILE},
        image_token_index=words.image_token_id,
        image_grid_pinpoints=GRIDS,
    )
    pixels = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRIDS
    )
    processor = LlavaNextProcessor(
        image_processor=pixels,
        tokenizer=words,
        **CLASS_TOKEN,
    )
    return build(LlavaNextForConditionalGeneration, config, dtype), processor


def llava_onevision(dtype: torch.dtype) -> tuple[Any, Any]:
    """LLaVA-OneVision over Qwen2. Tiles are shrunk if there are more than its aspect ratio allows."""
    words = tokenizer(
        ["<|im_start|>", "<|im_end|>", "<image>", "<video>"],
        bos=None,
        eos="<|im_end|>",
        image_token="<image>",
        video_token="<video>",
    )
    config = LlavaOnevisionConfig(
        text_config=text_config(words, "qwen2"),
        vision_config=siglip(TILE, 14, vision_use_head=False),
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=GRIDS,
        vision_aspect_ratio="anyres_max_1",
    )
    pixels = LlavaOnevisionImageProcessorPil(size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRIDS)
    processor = without_video(LlavaOnevisionProcessor)(
        image_processor=pixels,
        tokenizer=words,
        video_processor=None,
        num_image_tokens=9,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION_TEMPLATE,
        vision_aspect_ratio="anyres_max_1",
    )
    return build(LlavaOnevisionForConditionalGeneration, config, dtype), processor
