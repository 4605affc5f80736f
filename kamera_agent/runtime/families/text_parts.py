"""The parts that a text model must be made of to be served."""

from __future__ import annotations

from typing import Any

from torch import nn

from kamera_agent.errors import UnsupportedModelError

WRAPPER = "{} is a wrapper; pass the model itself, with adapters loaded by model.load_adapter() or merged."
KEY_NORMS = ("k_norm", "k_layernorm")
# The parts of an attention that treat every token alike, however long the window is. With any other part, such as the
# index of a sparse attention, long windows may follow rules that no short test shows.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "dense", "gate_proj", "g_proj")
KNOWN_PARTS = {*PROJECTIONS, *KEY_NORMS, "q_norm", "q_layernorm", "attn_sub_norm", "sinks", "rotary_emb"}
# Those of multi-head latent attention.
LATENT = "kv_a_proj_with_mqa"
LATENT_PARTS = {"q_proj", "q_a_proj", "q_a_layernorm", "q_b_proj", LATENT, "kv_a_layernorm", "kv_b_proj", "o_proj"}


def text_model_of(model: Any) -> Any:
    """The text model inside a causal language model. Raises UnsupportedModelError where it is elsewhere."""
    module = getattr(model, "model", None)
    if hasattr(module, "model"):
        raise UnsupportedModelError(WRAPPER.format(type(model).__name__))
    if module is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `model`, where the layers and the rotary embedding of a text model are "
            "expected. Use a decoder with RoPE."
        )
    return module


def key_module(attention: Any) -> nn.Module:
    """The module of an attention whose output holds the keys before RoPE."""
    norms = [norm for name in KEY_NORMS if (norm := getattr(attention, name, None)) is not None]
    module: nn.Module = norms[0] if norms else attention.k_proj
    return module


def is_latent(module: Any) -> bool:
    """Whether the layers of a text model have multi-head latent attention."""
    return hasattr(module.layers[0].self_attn, LATENT)


def check_parts(module: Any) -> None:
    """Raise UnsupportedModelError for a text model that is not made of known parts. Reads no weights."""
    name = type(module).__name__
    if missing := [part for part in ("layers", "rotary_emb") if not hasattr(module, part)]:
        raise UnsupportedModelError(f"{name} has no {' and no '.join(missing)}. Use a decoder with RoPE.")
    if module.config.num_hidden_layers != len(module.layers):
        raise UnsupportedModelError(f"{name} runs {len(module.layers)} layers {module.config.num_hidden_layers} times.")
    for number, layer in enumerate(module.layers):
        attention: Any = getattr(layer, "self_attn", None)
        if not hasattr(attention, "k_proj") and not hasattr(attention, LATENT):
            raise UnsupportedModelError(f"Layer {number} of {name} has no self_attn with a k_proj or {LATENT}.")
        parts = {*dict(attention.named_children()), *dict(attention.named_parameters(recurse=False))}
        if unknown := sorted(parts - (LATENT_PARTS if hasattr(attention, LATENT) else KNOWN_PARTS)):
            raise UnsupportedModelError(f"The attention of layer {number} of {name} has unknown parts: {unknown}.")
