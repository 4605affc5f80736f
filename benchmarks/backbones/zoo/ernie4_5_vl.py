"""ERNIE 4.5 VL."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration, Ernie4_5_VLMoeProcessor
from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import Ernie4_5_VLMoeImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    MERGING_TOWER,
    ODD_PATCH,
    ODD_PIXELS,
    build,
    template,
    text_config,
    tokenizer,
    without_video,
)

NAMED = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "image_start_token": "<|IMAGE_START|>",
    "image_end_token": "<|IMAGE_END|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_start_token": "<|VIDEO_START|>",
    "video_end_token": "<|VIDEO_END|>",
}
TEMPLATE = template(
    opens={"system": "", "user": "User:\n", "assistant": "Assistant:\n"},
    closes={"system": "\n", "user": "\n", "assistant": "<|end_of_sentence|>"},
    image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
    start="<|begin_of_sentence|>",
)
EXPERTS = {
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_intermediate_size": [32, 16],
    "moe_num_shared_experts": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
}


def ernie4_5_vl_moe(dtype: torch.dtype) -> tuple[Any, Any]:
    """ERNIE 4.5 VL. Its first layer is dense."""
    markers = ["<|begin_of_sentence|>", "<|end_of_sentence|>", *NAMED.values()]
    words = tokenizer(markers, bos="<|begin_of_sentence|>", eos="<|end_of_sentence|>", **NAMED)
    rope = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [3, 3, 2]}
    config = Ernie4_5_VLMoeConfig(
        text_config=text_config(words, "ernie4_5_vl_moe_text", rope_parameters=rope, **EXPERTS),
        vision_config=MERGING_TOWER | {"patch_size": ODD_PATCH},
        tie_word_embeddings=False,
        **{f"{name}_id": words.convert_tokens_to_ids(token) for name, token in NAMED.items()},
    )
    pixels = Ernie4_5_VLMoeImageProcessorPil(**ODD_PIXELS)
    lenient = without_video(Ernie4_5_VLMoeProcessor, create_moe_mm_token_type_ids=_experts)
    processor = lenient(pixels, words, None, chat_template=TEMPLATE)
    return build(Ernie4_5_VLMoeForConditionalGeneration, config, dtype), processor


def _experts(processor: Any, rows: Any) -> torch.Tensor:
    # The original makes an array of tensors, which NumPy warns about.
    lists = [[*map(int, row)] for row in rows]
    return torch.tensor(Ernie4_5_VLMoeProcessor.create_moe_mm_token_type_ids(processor, lists))
