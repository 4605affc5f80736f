"""How the weights of a model are quantised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def scheme_of(model: Any) -> str | None:
    """The scheme that the weights of a model were loaded in, in words; None where they are not quantised."""
    if (config := getattr(model.config, "quantization_config", None)) is None:
        # Quantised after loading, by torchao.quantization.quantize_().
        packed = {type(weight).__name__ for weight in model.parameters() if is_traceable_wrapper_subclass(weight)}
        return ", ".join(sorted(packed)) or None
    options: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
    method = str(getattr(options["quant_method"], "value", options["quant_method"]))
    return " ".join([method, *_details(method, options)])


def _details(method: str, options: Mapping[str, Any]) -> Iterator[str]:
    if method == "bitsandbytes":
        yield f"4 bits {options['bnb_4bit_quant_type']}" if options.get("load_in_4bit") else "8 bits"
    elif method == "torchao":
        yield str(options["quant_type"]["default"]["_type"])
    elif bits := options.get("bits"):
        yield f"{bits} bits"
    if options.get("dequantize"):
        yield "dequantised at load"


@torch.no_grad()
def finish_loading(model: Any) -> None:
    """Let a model of compressed-tensors decompress its weights.

    It does so in the first forward pass of the whole model, and parts of a model are run here.
    """
    if hasattr(model, "ct_decompress_hook"):
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))


def unpacked(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that a tensor is packed in, each with its name there (torchao); one that is not packed, as it is."""
    if not is_traceable_wrapper_subclass(tensor):
        yield name, tensor
        return
    names, context = tensor.__tensor_flatten__()
    for part in names:
        # The context says, for instance, whether activations are rounded, too.
        yield from unpacked(f"{name}/{part}/{context}", getattr(tensor, part))
