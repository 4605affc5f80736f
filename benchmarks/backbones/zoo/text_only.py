"""Text models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from benchmarks.backbones.zoo.parts import LATENT, TextProcessor, build, template, text_config, tokenizer

TEMPLATE = template(
    opens={"system": "", "user": "USER:\n", "assistant": "ASSISTANT:\n"},
    closes={"system": "\n", "user": "\n", "assistant": "</s>"},
    image="",
    start="<s>",
)
OPTIONS: dict[str, dict[str, Any]] = {"llama": {}, "qwen3": {}, "phi3": {}, "deepseek_v3": LATENT}


def text_only(model_type: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A text model of this type and its tokenizer."""
    words = tokenizer(["<s>", "</s>"], bos="<s>", eos="</s>")
    words.chat_template = TEMPLATE
    config = AutoConfig.for_model(**text_config(words, model_type, **OPTIONS[model_type]))
    return build(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, dtype), TextProcessor(words)
