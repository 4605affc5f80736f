"""Text models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

from benchmarks.backbones.zoo.parts import (
    DELTA,
    LATENT,
    TextProcessor,
    build,
    remembering,
    shake_vectors,
    template,
    text_config,
    tokenizer,
)

TEMPLATE = template(
    opens={"system": "", "user": "USER:\n", "assistant": "ASSISTANT:\n"},
    closes={"system": "\n", "user": "\n", "assistant": "</s>"},
    image="",
    start="<s>",
)
# Fewer tokens than a document has.
WINDOW = {"sliding_window": 5}
# The last two of six layers share the KV of the two before them.
SHARED = WINDOW | {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 1024,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "llama": WINDOW,  # which it ignores
    "qwen3": {},
    "phi3": {},
    "deepseek_v3": LATENT | WINDOW,  # which it ignores, too
    "cohere": {},
    "cohere2": WINDOW,
    "glm4_moe_lite": LATENT,
    "exaone4": WINDOW | {"sliding_window_pattern": 2},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"sliding_window_pattern": 2},
    "gemma3n_text": SHARED | {"laurel_rank": 8},
    "gemma4_text": SHARED | {"global_head_dim": 32},
    "glm4": {},
    "gpt_oss": WINDOW | EXPERTS,
    "granite": {"logits_scaling": 3.0, "attention_multiplier": 0.5, "residual_multiplier": 0.7},
    "hyperclovax": {"logits_scaling": 0.3, "attention_multiplier": 0.5},
    "mixtral": WINDOW | EXPERTS,
    "mimo_v2_flash": WINDOW | {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "olmo2": {},
    "olmo3": WINDOW | {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi": {"qk_layernorm": True},
    "smollm3": {"no_rope_layers": [1, 0, 1, 0]},
    "stablelm": {"qk_layernorm": True},
    "starcoder2": WINDOW,
    "qwen3_5_text": DELTA,
    "qwen3_next": DELTA | {"decoder_sparse_step": 2, "num_experts": 4, "num_experts_per_tok": 2},
    "lfm2": {"full_attn_idxs": [1, 3]},
    "lfm3": WINDOW | {"layer_types": ["conv", "sliding_attention", "full_attention", "conv"]},
}


def text_only(model_type: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A text model of this type and its tokenizer."""
    words = tokenizer(["<s>", "</s>"], bos="<s>", eos="</s>")
    words.chat_template = TEMPLATE
    config = AutoConfig.for_model(**text_config(words, model_type, **OPTIONS.get(model_type, {})))
    model = build(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, dtype)
    return remembering(shake_vectors(model)), TextProcessor(words)
