"""Records to bytes and back.

Header  16 bytes xxh3-128 of the rest, then JSON that `Manifest` validates.
Values  per layer, the raw little-endian bytes of its tensors back to back, cut into pieces of at most 16 MiB.
        A layer without bytes has no value. Values are numbered through the record, from 0.

The xxh3-128 of every value stands in the header. It is checked over the tensor memory that is handed out,
so it covers the copy as well as the medium. No pickle: bytes become numbers, never objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

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


class Encoded(NamedTuple):
    """A record as bytes: the header, and the values in order."""

    header: bytes
    values: list[Bytes]


def require_storable(record: Record) -> None:
    """Raise InputError when the record cannot be written: its dtype or device, attributes no JSON."""
    for tensor in (tensor for layer in record.layers for tensor in layer):
        if tensor.dtype not in DTYPE_NAMES or tensor.device.type != "cpu":
            raise InputError(
                f"a record holds a {tensor.dtype} tensor on {tensor.device}; move it to the CPU and use "
                f"one of {', '.join(DTYPE_NAMES.values())}."
            )
    try:
        json.dumps(record.header.attributes)
    except (TypeError, ValueError) as error:
        raise InputError(f"the attributes of a record are not JSON: {error}; use plain values.") from error


def encode(record: Record) -> Encoded:
    """Turn a record into bytes. Single-tensor layers are viewed, others copied once."""
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
        attributes=json.loads(json.dumps(header.attributes)),
        layers=tuple(layouts),
    )
    body = manifest.model_dump_json().encode()
    return Encoded(xxh3_128_digest(body) + body, values)


def decode_header(blob: bytes | memoryview) -> Manifest:
    """Read a header. Raises CorruptRecordError when it is not one that `encode` wrote."""
    body = bytes(blob[CHECKSUM_BYTES:])
    if xxh3_128_digest(body) != bytes(blob[:CHECKSUM_BYTES]):
        raise CorruptRecordError(f"the checksum of the header ({len(blob)} bytes) does not match")
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise CorruptRecordError(f"the header is not valid: {error}") from error


def decode_layers(
    manifest: Manifest, fetch: Callable[[int], memoryview | None]
) -> tuple[tuple[torch.Tensor, ...], ...]:
    """Copy the values into fresh CPU memory, each byte once, and verify them. The tensors share one block.

    fetch: the value of that number, or None where it is missing. It is only read during this call.
    Raises CorruptRecordError when a value is missing, of another size, or fails its checksum.
    """
    memory, number = _allocate(manifest), 0
    layers = []
    for layer in manifest.layers:
        blocks = [next(memory) for _ in layer.tensors]
        targets = [block.numpy() for block in blocks]
        start = 0
        for value in layer.values:
            _copy_value(number, value, fetch(number), _cut(targets, start, start + value.num_bytes))
            start += value.num_bytes
            number += 1
        layers.append(tuple(tensor.over(block) for tensor, block in zip(layer.tensors, blocks, strict=True)))
    return tuple(layers)


def _allocate(manifest: Manifest) -> Iterator[torch.Tensor]:
    """Unwritten memory for each tensor in order, [num_bytes] uint8 at aligned addresses of one block.

    One block because the C library keeps a large freed block and hands it out again: the next record of that
    size is read without page faults, which cost several times the copy.
    """
    sizes = [tensor.num_bytes for layer in manifest.layers for tensor in layer.tensors]
    strides = [-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for size in sizes]
    block = torch.empty(sum(strides), dtype=torch.uint8)
    starts = accumulate(strides, initial=0)
    return (block[start : start + size] for start, size in zip(starts, sizes, strict=False))


def _copy_value(number: int, layout: ValueLayout, value: memoryview | None, targets: Iterator[Bytes]) -> None:
    if value is None or len(value) != layout.num_bytes:
        found = "missing" if value is None else f"{len(value)} bytes long"
        raise CorruptRecordError(f"value {number} is {found}; {layout.num_bytes} bytes were written")
    source, hasher, done = np.frombuffer(value, np.uint8), xxh3_128(), 0
    for target in targets:
        np.copyto(target, source[done : done + target.size])
        hasher.update(target.data)
        done += target.size
    if hasher.hexdigest() != layout.checksum:
        raise CorruptRecordError(f"the checksum of value {number} ({layout.num_bytes} bytes) does not match")


def _pieces(tensors: tuple[torch.Tensor, ...]) -> Iterator[Bytes]:
    parts = [_bytes_of(tensor) for tensor in tensors]
    whole = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
    return (whole[start : start + MAX_VALUE_BYTES] for start in range(0, whole.size, MAX_VALUE_BYTES))


def _cut(parts: list[Bytes], start: int, stop: int) -> Iterator[Bytes]:
    """The stretches of parts, laid end to end, that cover [start, stop)."""
    for part in parts:
        stretch = part[max(start, 0) : max(stop, 0)]
        if stretch.size:
            yield stretch
        start, stop = start - part.size, stop - part.size


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()
