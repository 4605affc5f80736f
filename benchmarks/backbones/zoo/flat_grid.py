"""EXAONE 4.5, LFM3-VL, VideoLLaMA 3 and HyperCLOVA X: grids of patches at consecutive positions."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Exaone4_5_Config,
    Exaone4_5_ForConditionalGeneration,
    Exaone4_5_Processor,
    HyperCLOVAXVisionV2Config,
    HyperCLOVAXVisionV2ForConditionalGeneration,
    HyperCLOVAXVisionV2Processor,
    Lfm3VlConfig,
    Lfm3VlForConditionalGeneration,
    Lfm3VlProcessor,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3Processor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    HIDDEN,
    MERGING_TOWER,
    ODD_PATCH,
    ODD_PIXELS,
    TOWER,
    build,
    chatml,
    text_config,
    tokenizer,
    without_video,
)

MARKERS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
PLACEHOLDERS = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
TEMPLATE = chatml(image="<|vision_start|><|image_pad|><|vision_end|>")
# An image is two windows of the encoder; one layer attends to all of it.
WINDOWED = MERGING_TOWER | {
    "out_hidden_size": HIDDEN,
    "patch_size": ODD_PATCH,
    "window_size": 4 * ODD_PATCH,
    "fullatt_block_indexes": [1],
}


def exaone4_5(dtype: torch.dtype) -> tuple[Any, Any]:
    """EXAONE 4.5, whose full layers have no RoPE."""
    layers = {"sliding_window": 30, "sliding_window_pattern": 2}
    config, words = _config(Exaone4_5_Config, "exaone4", WINDOWED | {"num_key_value_heads": 1}, **layers)
    processor = without_video(Exaone4_5_Processor)(
        Qwen2VLImageProcessorPil(**ODD_PIXELS), words, None, chat_template=TEMPLATE
    )
    return build(Exaone4_5_ForConditionalGeneration, config, dtype), processor


def lfm3_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """LFM3-VL, of a short convolution, a sliding and a full layer, and another convolution."""
    kinds = ["conv", "sliding_attention", "full_attention", "conv"]
    vision = TOWER | {"num_key_value_heads": 1, "patch_size": ODD_PATCH, "layer_types": ["conv", "full_attention"]}
    config, words = _config(Lfm3VlConfig, "lfm3", vision, layer_types=kinds, sliding_window=20, conv_L_cache=5)
    processor = without_video(Lfm3VlProcessor)(
        Qwen2VLImageProcessorPil(**ODD_PIXELS), words, None, chat_template=TEMPLATE
    )
    return build(Lfm3VlForConditionalGeneration, config, dtype), processor


def video_llama_3(dtype: torch.dtype) -> tuple[Any, Any]:
    """VideoLLaMA 3 over Qwen2. A patch is one token."""
    config, words = _config(VideoLlama3Config, "qwen2", TOWER | {"patch_size": 14})
    pixels = VideoLlama3ImageProcessorPil(patch_size=14, size={"shortest_edge": 1024, "longest_edge": 2**20})
    processor = without_video(VideoLlama3Processor)(pixels, words, None, chat_template=TEMPLATE)
    return build(VideoLlama3ForConditionalGeneration, config, dtype), processor


def hyperclovax_vision_v2(dtype: torch.dtype) -> tuple[Any, Any]:
    """HyperCLOVA X, which multiplies its logits."""
    scales = {"logits_scaling": 0.3, "attention_multiplier": 0.5, "residual_multiplier": 0.7}
    vision = WINDOWED | {"model_type": "qwen2_5_vl_vision"}
    config, words = _config(HyperCLOVAXVisionV2Config, "hyperclovax", vision, **scales)
    processor = without_video(HyperCLOVAXVisionV2Processor)(
        Qwen2VLImageProcessorPil(**ODD_PIXELS), words, None, chat_template=TEMPLATE
    )
    return build(HyperCLOVAXVisionV2ForConditionalGeneration, config, dtype), processor


def _config(config_class: Any, text_model: str, vision: dict[str, Any], **options: Any) -> tuple[Any, Any]:
    words = tokenizer([*MARKERS, *PLACEHOLDERS.values()], bos=None, eos="<|im_end|>", **PLACEHOLDERS)
    config = config_class(
        text_config=text_config(words, text_model, **options),
        vision_config=vision,
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        tie_word_embeddings=False,
    )
    return config, words
