"""What cannot be served exactly, and why; told before the weights are read where the configuration alone tells."""

from __future__ import annotations

import warnings
from typing import Any

from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.families.decoder import check_kinds

UNEVEN = "full layers have longer heads than sliding ones, and one shape of KV is kept for all. Use Gemma 3."
# Model types whose configuration does not show it in the kinds of its layers.
REASONS = {
    "paligemma": "tokens of the prompt see what follows them (prefix-LM): what stands behind a chunk changes its KV. "
    "Use a model that is causal over text.",
    "gemma3n": "the last layers take the KV of earlier ones. Use Gemma 3.",
    "gemma4": UNEVEN,
    "gemma4_unified": UNEVEN,
}
ATTENTION_WITH_MASK = ("sdpa", "eager")


def check_config(config: Any) -> None:
    """Raise UnsupportedModelError for a configuration of a model that cannot be served whatever its weights."""
    if reason := REASONS.get(config.model_type):
        raise UnsupportedModelError(f"{config.model_type}: {reason}")
    check_kinds(getattr(config.get_text_config(), "layer_types", None) or ())


def check_model(model: Any) -> None:
    """Raise UnsupportedModelError for a loaded model in a state that cannot be served."""
    _check_devices(model)
    if getattr(model.generation_config, "cache_implementation", None) == "quantized":
        raise UnsupportedModelError(
            "generation_config.cache_implementation is 'quantized', which is not how KV is kept here; set it to None. "
            "canonical='int8' stores chunks in 8 bits."
        )


def _check_devices(model: Any) -> None:
    mapped = {str(device) for device in (getattr(model, "hf_device_map", None) or {}).values()}
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(mapped) > 1 or len(devices) > 1 or devices == {"meta"}:
        raise UnsupportedModelError(
            f"The model lies on {', '.join(sorted(mapped | devices))}; its layers must be on one device. "
            "Load it without device_map, or on a machine that it fits."
        )
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):
        raise UnsupportedModelError("The model is split over devices (tensor parallel); load it without tp_plan.")


def take_masks(model: Any) -> None:
    """Switch a model to sdpa, with a warning, where its kind of attention takes no 4-D mask.

    Raises UnsupportedModelError where it has no sdpa.
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
