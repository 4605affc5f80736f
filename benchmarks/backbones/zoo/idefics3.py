"""Idefics3 and SmolVLM over Llama."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from benchmarks.backbones.zoo.parts import (
    TOWER,
    build,
    template,
    text_config,
    tokenizer,
    without_video,
)

TEMPLATE = template(
    opens={"system": "System:", "user": "User:", "assistant": "Assistant:"},
    closes=dict.fromkeys(("system", "user", "assistant"), "<end_of_utterance>\n"),
    image="<image>",
    video="<video>",
    start="<|im_start|>",
)
TILE = 56
VISION = TOWER | {"image_size": TILE, "patch_size": 14}
MARKERS = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"]
PLACES = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
SIZES = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}


def idefics3(dtype: torch.dtype) -> tuple[Any, Any]:
    """Idefics3."""
    words, options = _parts()
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**SIZES), tokenizer=words, image_seq_len=4, chat_template=TEMPLATE
    )
    return build(Idefics3ForConditionalGeneration, Idefics3Config(**options), dtype), processor


def smolvlm(dtype: torch.dtype) -> tuple[Any, Any]:
    """SmolVLM. Its apply_chat_template needs the video processor, so that of the base class replaces it."""
    words, options = _parts()
    processor = without_video(SmolVLMProcessor, apply_chat_template=ProcessorMixin.apply_chat_template)(
        image_processor=SmolVLMImageProcessorPil(**SIZES),
        tokenizer=words,
        video_processor=None,
        image_seq_len=4,
        chat_template=TEMPLATE,
    )
    return build(SmolVLMForConditionalGeneration, SmolVLMConfig(**options), dtype), processor


def _parts() -> tuple[Any, dict[str, Any]]:
    words = tokenizer([*MARKERS, *PLACES], bos="<|im_start|>", eos="<end_of_utterance>", image_token="<image>")
    text = text_config(words, "llama", pad_token_id=words.eos_token_id)
    return words, {"text_config": text, "vision_config": VISION, "image_token_id": words.image_token_id}
