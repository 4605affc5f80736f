"""The content of a stored header: models that validate every header read from a medium."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kamera_agent.chunk import FORMAT_VERSION, Header, Key, RecordKind
from kamera_agent.config import MIB

MAX_VALUE_BYTES = 16 * MIB
# Of a tensor. torch counts strides in 64 bits, also those of a tensor without values.
MAX_VALUES, MAX_AXES = 1 << 40, 16

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Checksum = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
DTypeName = Literal["bfloat16", "float16", "float32", "float64", "uint8", "int8", "float8_e4m3fn", "float8_e5m2"]

DTYPE_NAMES: dict[torch.dtype, DTypeName] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.uint8: "uint8",
    torch.int8: "int8",
    torch.float8_e4m3fn: "float8_e4m3fn",
    torch.float8_e5m2: "float8_e5m2",
}
_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class _Stored(BaseModel):
    # The names of the fields are part of the format. "constants" keeps NaN and Infinity in attributes.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", ser_json_inf_nan="constants")


class TensorLayout(_Stored):
    """One tensor of a layer."""

    dtype: DTypeName
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_VALUES)], ...], Field(max_length=MAX_AXES)]

    @model_validator(mode="after")
    def _strides_fit(self) -> TensorLayout:
        if math.prod(size for size in self.shape if size) > MAX_VALUES:
            raise ValueError(f"shape {self.shape} is too large")
        return self

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize

    def over(self, memory: torch.Tensor) -> torch.Tensor:
        """The tensor as a view of memory [num_bytes] uint8, which must hold exactly its bytes."""
        return memory.view(_DTYPES[self.dtype]).view(self.shape)


class ValueLayout(_Stored):
    """One piece of a layer's bytes."""

    num_bytes: Annotated[int, Field(gt=0, le=MAX_VALUE_BYTES)]
    checksum: Checksum


class LayerLayout(_Stored):
    """The tensors of a layer and the values that hold their bytes."""

    tensors: tuple[TensorLayout, ...]
    values: tuple[ValueLayout, ...]

    @model_validator(mode="after")
    def _sizes_agree(self) -> LayerLayout:
        tensor_bytes = sum(tensor.num_bytes for tensor in self.tensors)
        value_bytes = sum(value.num_bytes for value in self.values)
        if tensor_bytes != value_bytes:
            raise ValueError(f"tensors take {tensor_bytes} bytes, values {value_bytes}")
        return self


class Manifest(_Stored):
    """The stored header: a `Header` and the layout of the tensors."""

    magic: Literal["kamera-record"] = "kamera-record"
    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)] = FORMAT_VERSION
    digest: Digest
    material: str
    chunk: Digest
    kind: RecordKind
    base: Digest | None
    attributes: dict[str, JsonValue]
    layers: tuple[LayerLayout, ...]

    @model_validator(mode="after")
    def _patches_have_bases(self) -> Manifest:
        if (self.kind == "patch") != (self.base is not None):
            raise ValueError(f"a {self.kind} has base {self.base}")
        return self

    @property
    def header(self) -> Header:
        """The header of the record."""
        num_bytes = sum(tensor.num_bytes for layer in self.layers for tensor in layer.tensors)
        key = Key(bytes.fromhex(self.digest), self.material)
        base = None if self.base is None else bytes.fromhex(self.base)
        return Header(key, bytes.fromhex(self.chunk), self.kind, self.attributes, num_bytes, base)
