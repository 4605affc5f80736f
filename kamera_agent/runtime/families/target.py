"""Where a model is loaded to, and in which precision, as callers say it."""

from __future__ import annotations

from reprlib import repr as short

import torch

from kamera_agent.errors import SettingError


def read_device(device: str | torch.device) -> torch.device:
    """A device of this machine; "auto" is the first GPU, else the CPU. Raises SettingError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=torch.device(device)).device
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise SettingError(f"device is {short(device)}; use 'auto' or a device of this machine ({error}).") from error


def read_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """A dtype of torch; "auto" stays. Raises SettingError."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype == "auto":
        return dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SettingError(f"dtype is {short(dtype)}; use 'auto' or a float dtype of torch, such as 'bfloat16'.")
    return found
