"""GLM-4.1V, GLM-4.5V, GLM-4.6V and GLM-OCR."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm4vProcessor,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VProcessor,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    HIDDEN,
    MERGING_TOWER,
    ODD_PATCH,
    ODD_PIXELS,
    build,
    template,
    text_config,
    tokenizer,
    without_video,
)

VISION = MERGING_TOWER | {"out_hidden_size": HIDDEN, "patch_size": ODD_PATCH, "image_size": 5 * ODD_PATCH}
# RoPE rotates half of a head.
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}
EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
MARKERS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}
TEMPLATE = template(
    opens={role: f"<|{role}|>\n" for role in ("system", "user", "assistant")},
    closes=dict.fromkeys(("system", "user", "assistant"), ""),
    image="<|begin_of_image|><|image|><|end_of_image|>",
    video="<|begin_of_video|><|video|><|end_of_video|>",
    start="[gMASK]<sop>",
)


def glm4v(dtype: torch.dtype) -> tuple[Any, Any]:
    """GLM-4.1V, whose RoPE rotates neighbouring pairs."""
    return _glm(dtype, Glm4vForConditionalGeneration, Glm4vConfig, "glm4v_text")


def glm4v_moe(dtype: torch.dtype) -> tuple[Any, Any]:
    """GLM-4.5V, whose RoPE rotates halves."""
    return _glm(dtype, Glm4vMoeForConditionalGeneration, Glm4vMoeConfig, "glm4v_moe_text", **EXPERTS)


def glm46v(dtype: torch.dtype) -> tuple[Any, Any]:
    """GLM-4.6V, whose timestamps have a decimal."""
    return _glm(dtype, Glm46VForConditionalGeneration, Glm46VConfig, "glm4v_text")


def glm_ocr(dtype: torch.dtype) -> tuple[Any, Any]:
    """GLM-OCR."""
    return _glm(dtype, GlmOcrForConditionalGeneration, GlmOcrConfig, "glm_ocr_text")


def _glm(dtype: torch.dtype, model_class: Any, config_class: Any, text_model: str, **options: Any) -> tuple[Any, Any]:
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    markers = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>", *MARKERS.values()]
    words = tokenizer(markers, bos=None, eos="<|endoftext|>", **named)
    config = config_class(
        text_config=text_config(words, text_model, rope_parameters=ROPE, **options),
        vision_config=VISION,
        tie_word_embeddings=False,
        **{name: words.convert_tokens_to_ids(token) for name, token in MARKERS.items()},
    )
    return build(model_class, config, dtype), _processor(model_class in NEWER, words)


# Models with the processor of GLM-4.6V.
NEWER = (Glm46VForConditionalGeneration, GlmOcrForConditionalGeneration)


def _processor(newer: bool, words: PreTrainedTokenizerFast) -> Any:
    pixels, whole = (Glm46VImageProcessorPil, Glm46VProcessor) if newer else (Glm4vImageProcessorPil, Glm4vProcessor)

    def token_types(self: Any, rows: Any) -> Any:
        # The original makes an array of tensors, which NumPy warns about.
        return whole.create_mm_token_type_ids(self, [[*map(int, row)] for row in rows])

    lenient = without_video(whole, create_mm_token_type_ids=token_types)
    return lenient(pixels(**ODD_PIXELS), words, None, chat_template=TEMPLATE)
