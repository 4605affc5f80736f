"""The encoding of records as bytes, and back.

Header  xxh3-128 of the rest (16 bytes), then JSON that `Manifest` validates.
Values  per layer, the raw little-endian bytes of its tensors back to back, cut into pieces of at most 16 MiB.
        A layer without bytes has no value. Values are numbered through the whole record, from 0.

The header holds the xxh3-128 of every value. It is checked on the tensor memory that the caller gets, so it
covers the copy as well as the medium. Without pickle, bytes can become numbers but never objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import ValidationError
from xxhash import xxh3_128, xxh3_128_digest, xxh3_128_hexdigest

from kamera_agent.chunk import Record
from kamera_agent.errors import CorruptRecordError, InputError
from kamera_agent.store.manifest import (
    DTYPE_NAMES,
    MAX_VALUE_BYTES,
    LayerLayout,
    Manifest,
    TensorLayout,
    ValueLayout,
)

ALIGNMENT_BYTES = 64
CHECKSUM_BYTES = 16

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Opener(Protocol):
    """Copies one value into its place, and says whether it is the one that was written."""

    def copy(self, source: Bytes, target: Bytes) -> None:
        """Copy the next bytes of the value. Nobody may use them before is_genuine() has said so."""

    def is_genuine(self, checksum: str) -> bool:
        """Whether the bytes that were copied have this checksum, of 32 hexadecimal digits."""


class _Copy:
    """See Opener. The copy is hashed, not the source, which is mapped memory that another process may change."""

    def __init__(self) -> None:
        self._hasher = xxh3_128()

    def copy(self, source: Bytes, target: Bytes) -> None:
        np.copyto(target, source)
        self._hasher.update(target.data)

    def is_genuine(self, checksum: str) -> bool:
        return self._hasher.hexdigest() == checksum


class Encoded(NamedTuple):
    """A record as bytes: its header, and its values in order."""

    header: bytes
    values: list[Bytes]


def require_storable(record: Record) -> None:
    """Raise InputError when the record cannot be written because of a dtype, a device, its attributes or its base."""
    for tensor in (tensor for layer in record.layers for tensor in layer):
        if tensor.dtype not in DTYPE_NAMES or tensor.device.type != "cpu":
            raise InputError(
                f"a record holds a {tensor.dtype} tensor on {tensor.device}; move it to the CPU and use one of "
                f"{', '.join(DTYPE_NAMES.values())}."
            )
    try:
        json.dumps(record.header.attributes)
    except (TypeError, ValueError) as error:
        raise InputError(f"the attributes of a record are not JSON: {error}; use JSON values only.") from error
    if (record.header.kind == "patch") != (record.header.base is not None):
        raise InputError(f"a record of kind {record.header.kind!r} has base {record.header.base!r}; patches have one.")


def encode(record: Record) -> Encoded:
    """Turn a record into bytes. Layers of one tensor are viewed; the others are copied once."""
    header, values, layouts = record.header, [], []
    for tensors in record.layers:
        pieces = list(_pieces(tensors))
        values += pieces
        layouts.append(
            LayerLayout(
                tensors=tuple(TensorLayout(dtype=DTYPE_NAMES[t.dtype], shape=tuple(t.shape)) for t in tensors),
                values=tuple(ValueLayout(num_bytes=p.size, checksum=xxh3_128_hexdigest(p.data)) for p in pieces),
            )
        )
    manifest = Manifest(
        digest=header.key.digest.hex(),
        material=header.key.material,
        chunk=header.chunk.hex(),
        kind=header.kind,
        base=None if header.base is None else header.base.hex(),
        attributes=json.loads(json.dumps(header.attributes)),
        layers=tuple(layouts),
    )
    body = manifest.model_dump_json().encode()
    return Encoded(xxh3_128_digest(body) + body, values)


def are_equal(record: Record, other: Record) -> bool:
    """Whether two records have equal headers and tensors."""
    # The encoded header holds the checksums of the tensors.
    return record.header == other.header and encode(record).header == encode(other).header


def decode_header(blob: bytes | memoryview) -> Manifest:
    """Read a header. Raises CorruptRecordError for bytes that `encode` did not write."""
    body = bytes(blob[CHECKSUM_BYTES:])
    if xxh3_128_digest(body) != bytes(blob[:CHECKSUM_BYTES]):
        raise CorruptRecordError(f"the checksum of the header ({len(blob)} bytes) does not match")
    return read_manifest(body)


def read_manifest(body: bytes) -> Manifest:
    """Read the JSON of a header. Raises CorruptRecordError."""
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise CorruptRecordError(f"the header is not valid: {error}") from error


def decode_layers(
    manifest: Manifest,
    fetch: Callable[[int], memoryview | None],
    open_value: Callable[[int], Opener] = lambda number: _Copy(),
) -> tuple[tuple[torch.Tensor, ...], ...]:
    """Copy the values into new CPU memory, each byte once, and verify them. The tensors share one block.

    fetch: returns the value of a number, or None when it is missing. The value is read only during this call.
    open_value: returns what copies and verifies the value of a number.
    Raises CorruptRecordError when a value is missing, has another size, or fails its checksum.
    """
    memory, number = _allocate(manifest), 0
    layers = []
    for layer in manifest.layers:
        blocks = [next(memory) for _ in layer.tensors]
        targets = [block.numpy() for block in blocks]
        start = 0
        for value in layer.values:
            parts = _cut(targets, start, start + value.num_bytes)
            _copy_value(number, value, fetch(number), parts, open_value(number))
            start += value.num_bytes
            number += 1
        layers.append(tuple(tensor.over(block) for tensor, block in zip(layer.tensors, blocks, strict=True)))
    return tuple(layers)


def _allocate(manifest: Manifest) -> Iterator[torch.Tensor]:
    """Uninitialised memory for each tensor in order, [num_bytes] uint8 at aligned addresses of one block.

    One block, because the C library keeps a large block that is freed and reuses it: the next record of that size is
    read without page faults, which cost several times as much as the copy.
    """
    sizes = [tensor.num_bytes for layer in manifest.layers for tensor in layer.tensors]
    strides = [-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes]
    block = torch.empty(sum(strides), dtype=torch.uint8)
    starts = accumulate(strides, initial=0)
    return (block[start : start + size] for start, size in zip(starts, sizes, strict=False))


def _copy_value(
    number: int, layout: ValueLayout, value: memoryview | None, targets: Iterator[Bytes], opener: Opener
) -> None:
    if value is None or len(value) != layout.num_bytes:
        size = "missing" if value is None else f"{len(value)} bytes long"
        raise CorruptRecordError(f"value {number} is {size}; {layout.num_bytes} bytes were written")
    source, num_copied = np.frombuffer(value, np.uint8), 0
    for target in targets:
        opener.copy(source[num_copied : num_copied + target.size], target)
        num_copied += target.size
    if not opener.is_genuine(layout.checksum):
        raise CorruptRecordError(f"the checksum of value {number} ({layout.num_bytes} bytes) does not match")


def _pieces(tensors: tuple[torch.Tensor, ...]) -> Iterator[Bytes]:
    parts = [_bytes_of(tensor) for tensor in tensors]
    whole = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return (whole[start : start + MAX_VALUE_BYTES] for start in range(0, whole.size, MAX_VALUE_BYTES))


def _cut(parts: list[Bytes], start: int, stop: int) -> Iterator[Bytes]:
    """The pieces of parts, laid end to end, that cover [start, stop)."""
    for part in parts:
        piece = part[max(start, 0) : max(stop, 0)]
        if piece.size:
            yield piece
        start, stop = start - part.size, stop - part.size


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
