"""InternVL3 over Qwen2 with dynamic RoPE, InternVL3.5 over Qwen3, and Qianfan-OCR."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    PreTrainedTokenizerFast,
    QianfanOCRConfig,
    QianfanOCRForConditionalGeneration,
    QianfanOCRProcessor,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from benchmarks.backbones.zoo.parts import (
    TOWER,
    build,
    chatml,
    text_config,
    tokenizer,
    without_video,
)

# As in the public template, a line break follows an image.
TEMPLATE = chatml(image="<IMG_CONTEXT>\n", video="<video>\n")
TILE, TOKENS_PER_TILE = 56, 4
VISION = TOWER | {"image_size": [TILE, TILE], "patch_size": [14, 14]}


def internvl(dtype: torch.dtype) -> tuple[Any, Any]:
    """InternVL3."""
    return _internvl(dtype, "qwen2", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6})


def internvl_qwen3(dtype: torch.dtype) -> tuple[Any, Any]:
    """InternVL3.5."""
    return _internvl(dtype, "qwen3")


def qianfan_ocr(dtype: torch.dtype) -> tuple[Any, Any]:
    """Qianfan-OCR, whose chat template has a placeholder of its own."""
    words = _words("<image>")
    config = QianfanOCRConfig(text_config=text_config(words, "qwen3"), vision_config=VISION, **_image(words))
    processor = QianfanOCRProcessor(
        _pixels(), words, image_seq_length=TOKENS_PER_TILE, chat_template=chatml(image="<image>\n")
    )
    return build(QianfanOCRForConditionalGeneration, config, dtype), processor


def _internvl(dtype: torch.dtype, text_model: str, **options: Any) -> tuple[Any, Any]:
    words = _words("<video>", video_token="<video>")
    config = InternVLConfig(
        text_config=text_config(words, text_model, **options), vision_config=VISION, **_image(words)
    )
    processor = without_video(InternVLProcessor)(
        image_processor=_pixels(),
        tokenizer=words,
        video_processor=None,
        image_seq_length=TOKENS_PER_TILE,
        chat_template=TEMPLATE,
    )
    return build(InternVLForConditionalGeneration, config, dtype), processor


def _words(marker: str, **tokens: str) -> PreTrainedTokenizerFast:
    return tokenizer(
        ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", marker],
        bos=None,
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        **tokens,
    )


def _image(words: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "image_token_id": words.context_image_token_id,
        "image_seq_length": TOKENS_PER_TILE,
        "tie_word_embeddings": False,
    }


def _pixels() -> GotOcr2ImageProcessorPil:
    return GotOcr2ImageProcessorPil(size={"height": TILE, "width": TILE}, max_patches=6)
