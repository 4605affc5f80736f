"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5 and the thinkers of Qwen2.5-Omni and Qwen3-Omni."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    DELTA,
    HIDDEN,
    INITIALIZER_RANGE,
    MERGING_TOWER,
    ODD_PATCH,
    ODD_PIXELS,
    build,
    chatml,
    remembering,
    text_config,
    tokenizer,
    without_video,
)

VISION = MERGING_TOWER | {"out_hidden_size": HIDDEN, "patch_size": ODD_PATCH}
# An image is two windows of the encoder; one layer attends to all of it.
WINDOWED = VISION | {"window_size": 4 * ODD_PATCH, "fullatt_block_indexes": [1]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
MARKERS = {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}


def qwen2_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen2-VL."""
    words = _words()
    vision = {
        "depth": 2,
        "num_heads": 2,
        "embed_dim": 32,
        "mlp_ratio": 2,
        "hidden_size": HIDDEN,
        "patch_size": ODD_PATCH,
        "initializer_range": INITIALIZER_RANGE,
    }
    config = Qwen2VLConfig(text_config=_text(words, "qwen2_vl_text"), vision_config=vision, **_ids(words))
    return build(Qwen2VLForConditionalGeneration, config, dtype), _processor(Qwen2VLProcessor, words)


def qwen2_5_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen2.5-VL, whose encoder attends within windows."""
    words = _words()
    config = Qwen2_5_VLConfig(text_config=_text(words, "qwen2_5_vl_text"), vision_config=WINDOWED, **_ids(words))
    return build(Qwen2_5_VLForConditionalGeneration, config, dtype), _processor(Qwen2_5_VLProcessor, words)


def qwen3_vl(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3-VL with two levels of deepstack."""
    return _qwen3_vl(Qwen3VLForConditionalGeneration, Qwen3VLConfig, "qwen3_vl_text", dtype)


def qwen3_vl_moe(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3-VL with a mixture of experts."""
    return _qwen3_vl(Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeConfig, "qwen3_vl_moe_text", dtype, **EXPERTS)


def qwen3_5(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3.5, of three layers of the gated delta rule and one of full attention."""
    return _qwen3_5(Qwen3_5ForConditionalGeneration, Qwen3_5Config, "qwen3_5_text", dtype)


def qwen3_5_moe(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qwen3.5 with a mixture of experts, all of which take part: rounding a state sends no token to others."""
    experts = EXPERTS | {"num_experts_per_tok": EXPERTS["num_experts"]}
    return _qwen3_5(Qwen3_5MoeForConditionalGeneration, Qwen3_5MoeConfig, "qwen3_5_moe_text", dtype, **experts)


def qwen2_5_omni(dtype: torch.dtype) -> tuple[Any, Any]:
    """The thinker of Qwen2.5-Omni. Its audio encoder is not used."""
    words = _omni_words()
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 32,
        "output_dim": HIDDEN,
        "max_source_positions": 50,
    }
    config = Qwen2_5OmniThinkerConfig(
        text_config=_text(words, "qwen2_5_omni_text"), vision_config=WINDOWED, audio_config=audio, **_omni_ids(words)
    )
    processor = without_video(Qwen2_5OmniProcessor)(
        Qwen2VLImageProcessorPil(**ODD_PIXELS), None, None, words, chat_template=TEMPLATE
    )
    return build(Qwen2_5OmniThinkerForConditionalGeneration, config, dtype), processor


def qwen3_omni_moe(dtype: torch.dtype) -> tuple[Any, Any]:
    """The thinker of Qwen3-Omni, with two levels of deepstack and a mixture of experts."""
    words = _omni_words()
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "d_model": 32,
        "output_dim": HIDDEN,
        "downsample_hidden_size": 8,
    }
    config = Qwen3OmniMoeThinkerConfig(
        text_config=_text(words, "qwen3_omni_moe_text", sections=[4, 2, 2], mrope_interleaved=True) | EXPERTS,
        vision_config=VISION | {"num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]},
        audio_config=audio,
        **_omni_ids(words),
    )
    processor = without_video(Qwen3OmniMoeProcessor)(
        Qwen2VLImageProcessorPil(**ODD_PIXELS), None, None, words, chat_template=TEMPLATE
    )
    return build(Qwen3OmniMoeThinkerForConditionalGeneration, config, dtype), processor


def _omni_words() -> PreTrainedTokenizerFast:
    return _words(
        audio_token="<|AUDIO|>",
        audio_bos_token="<|audio_bos|>",
        audio_eos_token="<|audio_eos|>",
        vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
    )


def _omni_ids(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    find = words.convert_tokens_to_ids
    return {
        **_ids(words),
        "audio_token_id": find("<|AUDIO|>"),
        "audio_start_token_id": find("<|audio_bos|>"),
        "audio_end_token_id": find("<|audio_eos|>"),
    }


TEMPLATE = chatml(
    image="<|vision_start|><|image_pad|><|vision_end|>", video="<|vision_start|><|video_pad|><|vision_end|>"
)


def _qwen3_vl(
    model_class: Any, config_class: Any, text_model: str, dtype: torch.dtype, **options: Any
) -> tuple[Any, Any]:
    words = _words()
    config = config_class(
        text_config=_text(words, text_model, sections=[4, 2, 2], mrope_interleaved=True) | options,
        vision_config=VISION | {"num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]},
        **_ids(words),
    )
    return build(model_class, config, dtype), _processor(Qwen3VLProcessor, words)


def _qwen3_5(
    model_class: Any, config_class: Any, text_model: str, dtype: torch.dtype, **options: Any
) -> tuple[Any, Any]:
    words = _words()
    config = config_class(
        text_config=_text(words, text_model, sections=[2, 1, 1], partial_rotary_factor=0.5) | DELTA | options,
        vision_config=VISION | {"num_position_embeddings": 25},
        **_ids(words),
    )
    return remembering(build(model_class, config, dtype)), _processor(Qwen3VLProcessor, words)


def _words(**tokens: str) -> PreTrainedTokenizerFast:
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", **MARKERS, **tokens}
    markers = ["<|im_start|>", "<|im_end|>", *dict.fromkeys(named.values())]
    return tokenizer(markers, bos=None, eos="<|im_end|>", **named)


def _text(words: PreTrainedTokenizerFast, model_type: str, sections: Any = (2, 3, 3), **rope: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(sections)} | rope
    return text_config(words, model_type, rope_parameters=rope)


def _ids(words: PreTrainedTokenizerFast) -> Mapping[str, Any]:
    find = words.convert_tokens_to_ids
    return {
        "image_token_id": find("<|image_pad|>"),
        "video_token_id": find("<|video_pad|>"),
        "vision_start_token_id": find("<|vision_start|>"),
        "vision_end_token_id": find("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


def _processor(processor_class: Any, words: PreTrainedTokenizerFast) -> Any:
    pixels = Qwen2VLImageProcessorPil(**ODD_PIXELS)
    return without_video(processor_class)(pixels, words, None, chat_template=TEMPLATE)
