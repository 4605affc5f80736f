"""Seeded random models of the Qwen-VL classes, with the real image processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from kamera_agent.pocket.tokenizer import build_tokenizer

Backbone = Literal["qwen2_vl", "qwen2_5_vl"]


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a model. sections: frequencies per RoPE axis (time, height, width); their sum is head_dim / 2."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    sections: tuple[int, int, int]
    vision_depth: int
    vision_hidden: int
    vision_heads: int
    vision_intermediate: int | None = None
    initializer_range: float = 0.02
    max_positions: int = 32768
    patch_size: int = 14
    vision_window: int = 112
    tied: bool = False


# About 60 million parameters, GQA 5 : 1, heads of 64.
SMALL_SHAPE = Shape(
    hidden=640,
    intermediate=2560,
    num_layers=10,
    num_heads=10,
    num_kv_heads=2,
    sections=(8, 12, 12),
    vision_depth=4,
    vision_hidden=256,
    vision_heads=4,
)


@dataclass(frozen=True, slots=True)
class PocketProcessor:
    """The parts of a Hugging Face processor, without its video processor, which needs torchvision."""

    tokenizer: PreTrainedTokenizerFast
    image_processor: Qwen2VLImageProcessorPil


def build_processor(shape: Shape = SMALL_SHAPE) -> PocketProcessor:
    """The tokenizer, and the Qwen-VL image processor with the patch size of a shape and default options."""
    return PocketProcessor(build_tokenizer(), Qwen2VLImageProcessorPil(patch_size=shape.patch_size))


def build_model(
    shape: Shape = SMALL_SHAPE,
    *,
    backbone: Backbone = "qwen2_5_vl",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A model with seeded random weights. Its answers are noise; its KV and its timings are real."""
    builder = {"qwen2_vl": _qwen2_vl, "qwen2_5_vl": _qwen2_5_vl}[backbone]
    # Hugging Face initialises weights from the global generator. Its state is restored afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(shape, dtype).eval()


def _qwen2_5_vl(shape: Shape, dtype: torch.dtype) -> Any:
    vision = {
        "depth": shape.vision_depth,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate or 4 * shape.vision_hidden,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "fullatt_block_indexes": [] if shape.vision_window == 2 * shape.patch_size else [shape.vision_depth - 1],
        "window_size": shape.vision_window,
        "patch_size": shape.patch_size,
        "initializer_range": shape.initializer_range,
    }
    config = Qwen2_5_VLConfig(text_config=_text(shape), vision_config=vision, **_common(shape))
    return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")


def _qwen2_vl(shape: Shape, dtype: torch.dtype) -> Any:
    vision = {
        "depth": shape.vision_depth,
        "embed_dim": shape.vision_hidden,
        "num_heads": shape.vision_heads,
        "hidden_size": shape.hidden,
        "mlp_ratio": 4,
        "patch_size": shape.patch_size,
        "initializer_range": shape.initializer_range,
    }
    config = Qwen2VLConfig(text_config=_text(shape), vision_config=vision, **_common(shape))
    return Qwen2VLForConditionalGeneration._from_config(config, dtype=dtype, attn_implementation="sdpa")


def _text(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": len(build_tokenizer()),
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "max_position_embeddings": shape.max_positions,
        "initializer_range": shape.initializer_range,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": list(shape.sections),
        },
        "tie_word_embeddings": shape.tied,
        "bos_token_id": None,
        "eos_token_id": build_tokenizer().convert_tokens_to_ids("<|im_end|>"),
    }


def _common(shape: Shape) -> dict[str, Any]:
    ids = build_tokenizer().convert_tokens_to_ids
    return {
        "tie_word_embeddings": shape.tied,
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }
