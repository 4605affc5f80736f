"""Devices that do not exist: tensors that compute on the CPU and carry the device that they are said to be on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import torch
from accelerate import dispatch_model
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

# A backend in Python, without an operation of its own: nothing but a Claimed can be there.
_setup_privateuseone_for_python_backend("pretended")
FIRST, SECOND = torch.device("pretended:0"), torch.device("pretended:1")
CPU = torch.device("cpu")
aten = torch.ops.aten
# What brings numbers from one device to another.
COPIES = (aten._to_copy.default, aten.copy_.default)
# These take indices from the CPU, as on a GPU.
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)


class Claimed(torch.Tensor):
    """A tensor on the CPU that claims to be on another device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Claimed:
        wrapper: Claimed = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=device,
        )
        wrapper.inner = inner
        return wrapper

    def __repr__(self, **_: Any) -> str:
        return f"Claimed({self.inner}, {self.device})"

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {}, Counter())


class _Literals(TorchFunctionMode):
    """torch.tensor() does not ask a dispatch mode: numbers are made on the CPU, and sent."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.tensor and (device := options.pop("device", None)) is not None:
            return func(*args, **options).to(device)
        return func(*args, **options)


class Devices(TorchDispatchMode):
    """While active, a tensor can be made on, and sent to, any device.

    crossings: how many tensors were copied from one device to another, by these two.
    Raises AssertionError for an operation on tensors of two devices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossings = Counter[tuple[torch.device, torch.device]]()
        self._literals = _Literals()

    def __enter__(self) -> Self:
        super().__enter__()
        self._literals.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._literals.__exit__(*raised)
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {}, self.crossings)


def _compute(func: Any, args: Any, kwargs: Mapping[str, Any], crossings: Counter[Any]) -> Any:
    """Run an operation on the CPU, and claim the result for the device where it would be."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    # A number of no dimension goes to any device.
    devices = {tensor.device for tensor in tensors if tensor.dim() or isinstance(tensor, Claimed)}
    if func in INDEXING:
        devices -= {CPU} if tensors[0].device != CPU else set()
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if func in COPIES:
        source, target = (tensors[-1].device, wanted or tensors[0].device)
        if source != target:
            crossings[source, target] += 1
    else:
        devices.discard(CPU) if all(t.device != CPU or t.dim() == 0 for t in tensors) else None
        assert len(devices) <= 1, f"{func} takes tensors on {sorted(map(str, devices))}"
        target = wanted or next(iter(devices), CPU)
    inner = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Claimed)}

    def plain(value: Any) -> Any:
        return value.inner if isinstance(value, Claimed) else value

    def claimed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return inner.get(id(value)) if id(value) in inner else value if target == CPU else Claimed(value, target)

    options = tree_map(plain, dict(kwargs))
    if wanted:
        options["device"] = CPU
    return tree_map(claimed, func(*tree_map(plain, args), **options))


def claim(model: nn.Module, device_map: Mapping[str, torch.device]) -> None:
    """Give a model to devices, by the names of its parts, with accelerate's hooks, as device_map does in loading."""
    for prefix, device in device_map.items():
        for part in model.get_submodule(prefix).modules():
            for name, weight in part._parameters.items():
                if weight is not None and not isinstance(weight, Claimed):
                    part._parameters[name] = nn.Parameter(Claimed(weight.detach(), device), requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None and not isinstance(buffer, Claimed):
                    part._buffers[name] = Claimed(buffer, device)
    dispatch_model(model, dict(device_map), main_device=FIRST, skip_keys=["past_key_values", "cache"], force_hooks=True)
