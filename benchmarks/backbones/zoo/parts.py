"""Parts of the small models: tokenizer, chat templates, towers, text models of each kind of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from kamera_agent.pocket.tokenizer import build_tokenizer

SEED = 20260623
# Weights larger than those of trained models, so the tokens before a chunk change its KV visibly.
INITIALIZER_RANGE = 0.15
HIDDEN = 64
MAX_POSITIONS = 2048


# A vision tower in the terms of most configurations, and in those of the Qwen-VL family.
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": INITIALIZER_RANGE,
}
MERGING_TOWER = {
    "depth": 2,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "initializer_range": INITIALIZER_RANGE,
}
# An odd patch size, for awkward numbers of tokens.
ODD_PATCH = 9
ODD_PIXELS = {"patch_size": ODD_PATCH, "size": {"shortest_edge": 1024, "longest_edge": 2**20}}


def template(opens: Mapping[str, str], closes: Mapping[str, str], image: str, start: str = "", video: str = "") -> str:
    """A chat template for contents that are lists of parts. opens, closes: text around a turn, by role."""
    content = "{{ parts(message) }}"
    turns = [
        f"{{% if message.role == {role!r} %}}{_literal(opens[role])}{content}{_literal(closes[role])}{{% endif %}}"
        for role in opens
    ]
    media = "".join(
        f"{{% if part.type == {kind!r} %}}{_literal(text)}{{% endif %}}"
        for kind, text in (("image", image), ("video", video))
    )
    part = f"{media}{{% if part.type == 'text' %}}{{{{ part.text }}}}{{% endif %}}"
    return (
        f"{{% macro parts(message) %}}{{% for part in message.content %}}{part}{{% endfor %}}{{% endmacro %}}"
        f"{_literal(start)}{{% for message in messages %}}{''.join(turns)}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{_literal(opens['assistant'].rstrip(' '))}{{% endif %}}"
    )


def chatml(image: str, video: str = "") -> str:
    """The chat template with <|im_start|> and <|im_end|>."""
    roles = ("system", "user", "assistant")
    opens = {role: f"<|im_start|>{role}\n" for role in roles}
    return template(opens, dict.fromkeys(roles, "<|im_end|>\n"), image, video=video)


def _literal(text: str) -> str:
    return f"{{{{ {text!r} }}}}"


def tokenizer(markers: Sequence[str], *, bos: str | None, eos: str, **tokens: str) -> PreTrainedTokenizerFast:
    """A tokenizer of words, bytes and markers. tokens: attributes in which processors look, such as image_token."""
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer().backend_tokenizer,
        additional_special_tokens=list(markers),
        bos_token=bos,
        eos_token=eos,
        **tokens,
    )


def text_config(words: PreTrainedTokenizerFast, model_type: str, **options: Any) -> dict[str, Any]:
    """Configuration of a text model of four layers with two query heads per key/value head."""
    return {
        "model_type": model_type,
        "vocab_size": len(words),
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    } | options


# Multi-head latent attention, with a mixture of experts after the first two layers.
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 2,
    "moe_intermediate_size": 32,
}


# Layers of the gated delta rule. Values of other sizes than keys, so that a mistake shows. A map is smaller than the
# inputs of 15 tokens.
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}


def siglip(image_size: int, patch_size: int, **options: Any) -> dict[str, Any]:
    """Configuration of a SigLIP tower, which has no class token."""
    sizes = {"image_size": image_size, "patch_size": patch_size}
    return TOWER | {"model_type": "siglip_vision_model"} | sizes | options


def build(model_class: Any, config: Any, dtype: torch.dtype) -> Any:
    """A model with seeded random weights. The state of the global generator is restored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        attention = "sdpa" if model_class._supports_sdpa else "eager"
        return model_class._from_config(config, dtype=dtype, attn_implementation=attention).eval()


def without_video(processor_class: Any, **overrides: Any) -> Any:
    """A processor class that accepts None for its video processor, which would need torchvision."""
    return type(
        processor_class.__name__,
        (processor_class,),
        {"check_argument_for_proper_class": lambda self, name, argument: None, **overrides},
    )


def fill_zeros(model: Any, *names: str) -> Any:
    """The model, with random weights in the parameters of these names. Hugging Face initialises them with zeros."""
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in names:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(INITIALIZER_RANGE * noise)
    return model


def shake_vectors(model: Any) -> Any:
    """The model, with noise on its vectors: norms begin as ones, biases as zeros, and would hide a mistake."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(INITIALIZER_RANGE * torch.randn(parameter.shape, generator=generator))
    return model


def remembering(model: Any) -> Any:
    """The model, with slow decays in its layers of the gated delta rule, whose random ones forget within few tokens."""
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if name.endswith("A_log"):
            parameter.data.copy_(-2 - 3 * torch.rand(parameter.shape, generator=generator))
    return model


class TextProcessor(NamedTuple):
    """The processor of a text model."""

    tokenizer: PreTrainedTokenizerFast
