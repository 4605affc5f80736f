"""What cannot be served exactly, and why; refused before the weights are read if the configuration shows it."""

from __future__ import annotations

import warnings
from typing import Any

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.decoder import check_kinds
from kamera_agent.runtime.families.placement import devices_of

# By model type, where the configuration does not show it.
REASONS = {
    "minicpmv4_7": "the positions of an image depend on the text beside it: a line end after it is on its canvas. Use "
    "MiniCPM-V 4.6.",
    "molmo2": "tokens of an image see those of later images, so each new image changes the KV of all before it. Use a "
    "model in which an image sees no later one.",
    "gemma4_unified": "the model masks images in one way in its forward pass, and in another way for generate() with a "
    "static cache, so neither can be the reference. Use another model of Gemma 4.",
    "hunyuan_vl": "keys are normalised after RoPE, so a moved key cannot be made of the key before it. Use a model "
    "that turns its keys last.",
    "paligemma": "tokens of the prompt see what follows them (prefix-LM), so content after a chunk changes its KV. "
    "Use a model that is causal over text.",
}
# Settings of a text model under which it cannot be served, and why.
CROSS = "the decoder attends to the output of an encoder, which no chunk keeps. Use a decoder-only model."
SETTINGS = {
    "is_encoder_decoder": CROSS,
    "add_cross_attention": CROSS,
    "use_bidirectional_attention": "every token sees what follows it, so no chunk can be computed before the whole "
    "window is known. Use a checkpoint that generates text.",
    "clip_qkv": "keys are clipped on their way to RoPE, where they are not seen. Use a model that does not clip them.",
}
# The name of our attention, which a model has during a pass; then it is given back its sdpa.
LENT = "kamera_agent"
ATTENTION_WITH_MASK = ("sdpa", "eager", LENT)


def check_config(config: Any) -> None:
    """Raise UnsupportedModelError for a model that cannot be served, as far as its configuration shows."""
    if reason := REASONS.get(config.model_type):
        raise UnsupportedModelError(f"{config.model_type}: {reason}")
    text = config.get_text_config()
    for name, reason in SETTINGS.items():
        # The value "vision" is about images only.
        if (value := getattr(text, name, None)) and value != "vision":
            raise UnsupportedModelError(f"{name} is {value!r}: {reason}")
    check_kinds(getattr(text, "layer_types", None) or (), text.model_type)


def check_model(model: Any) -> None:
    """Raise UnsupportedModelError for a loaded model in a state that cannot be served."""
    _check_devices(model)
    _check_packing(model)
    if getattr(model.generation_config, "cache_implementation", None) == "quantized":
        raise UnsupportedModelError(
            "generation_config.cache_implementation is 'quantized', and the pool does not quantize KV; set it to None. "
            "base_dtype='int8' stores chunks in 8 bits."
        )


def _check_devices(model: Any) -> None:
    devices = {device.type for device in devices_of(model)}
    if len(devices) > 1 or devices == {"meta"}:
        raise UnsupportedModelError(
            f"The model computes on {' and '.join(sorted(devices))}; its parts must be on devices of one kind, or be "
            "brought there by accelerate. Load it with device_map='auto', or on a machine that it fits."
        )
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise UnsupportedModelError("The model is split over devices (tensor parallel); load it without tp_plan.")


def _check_packing(model: Any) -> None:
    layers = (layer for layer in model.modules() if getattr(layer, "support_avx512bf16_for_cpu", False))
    if any(layer.weight.device.type == "cpu" for layer in layers):
        raise UnsupportedModelError(
            "On this CPU, bitsandbytes packs weights of 4 bits anew when they are first used, so a model in use looks "
            "like a changed one. Load it in 8 bits or with torchao, or on a GPU."
        )


def take_masks(model: Any) -> None:
    """Switch a model to sdpa, with a warning, if its attention takes no 4-D mask.

    Raises UnsupportedModelError if it has no sdpa.
    """
    attention = model.config.get_text_config()._attn_implementation
    if attention in ATTENTION_WITH_MASK:
        return
    try:
        model.set_attn_implementation("sdpa")
    except ValueError as error:
        raise UnsupportedModelError(
            f"attn_implementation={attention!r} takes no 4-D mask, and {type(model).__name__} has no sdpa: {error}"
        ) from error
    warnings.warn(
        f"attn_implementation={attention!r} takes no 4-D mask; the model was switched to 'sdpa'.", stacklevel=3
    )
