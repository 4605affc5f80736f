"""What a screenshot of 1,000 tokens keeps in bfloat16, in the shapes of released models.

    python -m benchmarks.backbones.sizes

The text models are of the real classes, in the sizes of the released configurations, without weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from kamera_agent.runtime.families.decoders import decoder_of

NUM_TOKENS = 1000
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "Qwen3-VL-8B": {
        "model_type": "qwen3_vl_text",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "Qwen3.5-9B": {"model_type": "qwen3_5_text"},
    "Gemma 3n E4B": {"model_type": "gemma3n_text"},
    "Gemma 4 E4B": {
        "model_type": "gemma4_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 42,
        "num_kv_shared_layers": 18,
        "num_key_value_heads": 2,
    },
    "Gemma 4 31B": {
        "model_type": "gemma4_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "hidden_size_per_layer_input": 0,
        "num_hidden_layers": 60,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "attention_k_eq_v": True,
    },
    # 256 experts, of which a token takes eight; 671 billion parameters in all.
    "DeepSeek-V3 (MLA)": {"model_type": "deepseek_v3"},
}


@cache
def text_model(name: str) -> Any:
    """The text model of a shape, on the meta device."""
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(**SHAPES[name]), dtype=torch.bfloat16)


def kept_bytes(name: str) -> int:
    """Bytes that NUM_TOKENS tokens keep over all layers."""
    return decoder_of(text_model(name)).chunk_bytes(NUM_TOKENS)


def token_flops(name: str) -> float:
    """Floating-point operations of one token in the layers: two for each weight that it meets. Without attention."""
    model = text_model(name)
    config = model.config
    share = getattr(config, "num_experts_per_tok", 0) / (getattr(config, "n_routed_experts", 0) or 1)
    layers = ((name, weight.numel()) for name, weight in model.layers.named_parameters())
    return sum(2 * size * (share if ".experts." in name else 1) for name, size in layers)


def size_table() -> str:
    """Markdown: the shapes, and the megabytes."""
    rows = [f"| {name} | {kept_bytes(name) / 1e6:.1f} MB |" for name in SHAPES]
    return "\n".join(["| shape | 1,000 tokens keep |", "|---|---|", *rows])


if __name__ == "__main__":
    print(size_table())
