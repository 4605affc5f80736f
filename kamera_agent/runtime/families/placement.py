"""Where the parts of a model compute, and where their weights are: accelerate's hooks may bring these for each pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """The device on which the first part with parameters of its own computes."""
    owner = next(part for part in module.modules() if next(part.parameters(recurse=False), None) is not None)
    wanted = (getattr(hook, "execution_device", None) for hook in _hooks(owner))
    device = next((device for device in wanted if device is not None), next(owner.parameters(recurse=False)).device)
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)


def devices_of(model: nn.Module) -> set[torch.device]:
    """The devices on which the parts of a model compute."""
    return {device_of(part) for part in model.modules() if next(part.parameters(recurse=False), None) is not None}


def offloaded(model: nn.Module) -> dict[str, torch.Tensor]:
    """By name, the weights that are elsewhere until a pass needs them; empty where all are on their devices."""
    if not any(parameter.is_meta for parameter in model.parameters()):
        return {}
    return {
        f"{prefix}.{name}".removeprefix("."): hook.weights_map[name]
        for prefix, part in model.named_modules()
        for hook in _hooks(part)
        if getattr(hook, "offload", False)
        for name, _ in part.named_parameters(recurse=hook.place_submodules)
    }


def _hooks(part: nn.Module) -> list[Any]:
    hook = getattr(part, "_hf_hook", None)
    return [] if hook is None else [*getattr(hook, "hooks", [hook])]
