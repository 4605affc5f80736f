"""Tensors on their way from the host to a device."""

from __future__ import annotations

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on a device. The host does not wait for what the device still has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    # A copy from memory that is not pinned may wait for everything in the queue before it. An expanded tensor cannot be
    # pinned as it is.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
