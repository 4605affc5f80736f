"""The kernels of a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from kamera_agent.runtime.kernels import reference
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.kernels.reference import Pairs
from kamera_agent.runtime.kernels.slots import Slots

# Ampere, the oldest GPUs that the tests compile the kernels for.
MIN_CAPABILITY = (8, 0)


class Kernels(NamedTuple):
    """The operations of one backend. Signatures, shapes and meaning are those of reference.py."""

    relocate: Callable[[Tensor, Tensor, Slots, Tensor, Tensor, Pairs], None]
    rebuild: Callable[
        [Tensor, Tensor, Tensor, Slots, Sequence[LayerKV], Sequence[Factors] | None, Tensor, Tensor, Pairs],
        None,
    ]


EAGER = Kernels(reference.relocate, reference.rebuild)


def kernels_for(device: torch.device) -> Kernels:
    """The backend of a device: Triton on NVIDIA GPUs from MIN_CAPABILITY on, the eager twins everywhere else."""
    if device.type != "cuda" or torch.version.hip or find_spec("triton") is None:
        return EAGER
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return EAGER
    # Imported here, because Triton is not installed everywhere.
    from kamera_agent.runtime.kernels.rebuild import rebuild
    from kamera_agent.runtime.kernels.relocate import relocate

    return Kernels(relocate, rebuild)
