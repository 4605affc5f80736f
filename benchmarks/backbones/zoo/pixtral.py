"""Pixtral, Mistral 3 over each of its text models, and LightOnOCR."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    BatchFeature,
    LightOnOcrConfig,
    LightOnOcrForConditionalGeneration,
    LightOnOcrProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    LATENT,
    MAX_POSITIONS,
    TOWER,
    build,
    chatml,
    template,
    text_config,
    tokenizer,
)

TEMPLATE = template(
    opens={"system": "[SYSTEM_PROMPT]", "user": "[INST]", "assistant": ""},
    closes={"system": "[/SYSTEM_PROMPT]", "user": "[/INST]", "assistant": "</s>"},
    image="[IMG]",
    start="<s>",
)
TURNS = ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"]
PATCH = 14
VISION = TOWER | {"model_type": "pixtral", "image_size": 8 * PATCH, "patch_size": PATCH}


class PixtralByHand:
    """Stands in for PixtralProcessor, which needs torchvision.

    A token ends each line of patches; another one ends the last line.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, image_processor: Any, side: int) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.chat_template = tokenizer.chat_template
        self.apply_chat_template = tokenizer.apply_chat_template
        self._side = side

    def __call__(
        self, text: Sequence[str], images: Sequence[Any] | None = None, return_tensors: str = "pt", **options: Any
    ) -> Any:
        batch: dict[str, Any] = {}
        lines: list[str] = []
        if images:
            batch = self.image_processor(images, patch_size=self._side, return_tensors="pt")
            for height, width in batch["image_sizes"].tolist():
                line = "[IMG]" * (width // self._side) + "[IMG_BREAK]"
                lines.append((line * (height // self._side)).removesuffix("[IMG_BREAK]") + "[IMG_END]")
        written = iter(lines)
        filled = [re.sub(r"\[IMG\]", lambda _: next(written), prompt) for prompt in text]
        return BatchFeature({**self.tokenizer(filled, return_tensors=return_tensors, **options), **batch})


def llava_mistral(dtype: torch.dtype) -> tuple[Any, Any]:
    """Pixtral: LLaVA over Mistral, with a tower for images of any size."""
    words, processor = _processor(PATCH)
    config = LlavaConfig(
        text_config=text_config(words, "mistral", sliding_window=None),
        vision_config=VISION,
        image_token_index=words.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return build(LlavaForConditionalGeneration, config, dtype), processor


def mistral3(dtype: torch.dtype) -> tuple[Any, Any]:
    """Mistral Small 3.1."""
    return mistral3_over("mistral", dtype, sliding_window=None)


def mistral3_ministral3(dtype: torch.dtype) -> tuple[Any, Any]:
    """Ministral 3: YaRN, and queries that are scaled up beyond the original length."""
    return mistral3_over("ministral3", dtype, sliding_window=None, **_yarn())


def mistral3_mistral4(dtype: torch.dtype) -> tuple[Any, Any]:
    """Mistral Small 4: the same with latent attention."""
    head_dim = LATENT["qk_nope_head_dim"] + LATENT["qk_rope_head_dim"]
    return mistral3_over("mistral4", dtype, **LATENT | {"head_dim": head_dim}, **_yarn())


def _yarn() -> dict[str, Any]:
    """YaRN, and queries that are scaled up beyond the original length. A new dict, because configurations change it."""
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": MAX_POSITIONS,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    }
    return {"rope_parameters": rope, "max_position_embeddings": 4 * MAX_POSITIONS}


def mistral3_over(text_model: str, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    """Mistral 3 over a text model. Four patches become one token."""
    words, processor = _processor(2 * PATCH)
    config = Mistral3Config(
        text_config=text_config(words, text_model, **options),
        vision_config=VISION,
        image_token_index=words.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    return build(Mistral3ForConditionalGeneration, config, dtype), processor


def lighton_ocr(dtype: torch.dtype) -> tuple[Any, Any]:
    """LightOnOCR over Qwen3. Four patches become one token, and lines end without one."""
    marks = {name: f"<|{name}|>" for name in ("image_token", "image_break_token", "image_end_token")}
    words = tokenizer(["<|im_start|>", "<|im_end|>", *marks.values()], bos=None, eos="<|im_end|>", **marks)
    config = LightOnOcrConfig(
        text_config=text_config(words, "qwen3", sliding_window=None),
        vision_config=VISION | {"head_dim": VISION["hidden_size"] // VISION["num_attention_heads"]},
        image_token_id=words.image_token_id,
        tie_word_embeddings=False,
    )
    pixels = PixtralImageProcessorPil(
        size={"longest_edge": 8 * PATCH}, patch_size={"height": 2 * PATCH, "width": 2 * PATCH}
    )
    processor = LightOnOcrProcessor(pixels, words, PATCH, chat_template=chatml(image=words.image_token))
    return build(LightOnOcrForConditionalGeneration, config, dtype), processor


def _processor(side: int) -> tuple[PreTrainedTokenizerFast, PixtralByHand]:
    markers = ["<s>", "</s>", *TURNS, "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    words = tokenizer(markers, bos="<s>", eos="</s>", image_token="[IMG]")
    words.chat_template = TEMPLATE
    pixels = PixtralImageProcessorPil(size={"longest_edge": 8 * PATCH}, patch_size={"height": PATCH, "width": PATCH})
    return words, PixtralByHand(words, pixels, side)
