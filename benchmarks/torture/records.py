"""Records whose bits follow from their name and version, so that a reader can tell a wrong one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from blake3 import blake3

from kamera_agent.chunk import Key, Record
from kamera_agent.store.base import Store


def make_key(name: str) -> Key:
    return Key.of(name=name)


def over(base: str) -> dict[str, Any]:
    """Fields of a patch over a base."""
    digest = make_key(base).digest
    return {"kind": "patch", "chunk": digest, "base": digest}


def versioned_record(name: str, version: int) -> Record:
    """A record with its version in its attributes. "b/p" names a patch over base "b"."""
    base, _, patch = name.partition("/")
    fields = over(base) if patch else {"kind": "base", "chunk": make_key(name).digest}
    shapes = [(version % 7 + 1, 512), (3, 1 + version % 5, 256)]
    layers = [[_noise(f"{name} {version} {layer} {shape}", shape) for shape in shapes] for layer in range(2)]
    return Record.of(make_key(name), layers=layers, attributes={"version": version}, **fields)


def _noise(seed: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Random bits as bfloat16, NaN and infinity among them."""
    num_bytes = 2 * torch.Size(shape).numel()
    bits = bytearray(blake3(seed.encode()).digest(num_bytes))
    return torch.frombuffer(bits, dtype=torch.bfloat16).reshape(shape)


def bits(record: Record) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Everything about the tensors, comparable: dtype, shape, raw bytes, in order."""
    return [
        (str(tensor.dtype), tuple(tensor.shape), bytes(tensor.reshape(-1).view(torch.uint8).numpy()))
        for tensors in record.layers
        for tensor in tensors
    ]


def same(left: Record, right: Record) -> bool:
    """Whether two records are equal bit for bit."""
    return (
        left.header == right.header
        and [len(tensors) for tensors in left.layers] == [len(tensors) for tensors in right.layers]
        and bits(left) == bits(right)
    )


def genuine(name: str, record: Record) -> bool:
    """Whether a versioned record equals, bit for bit, the version in its attributes."""
    return same(record, versioned_record(name, record.header.attributes["version"]))


def get_all(store: Store, names: Iterable[str]) -> dict[str, Record]:
    """The records of these names that a store has."""
    keys = {make_key(name): name for name in names}
    found = store.get_many(list(keys))
    return {name: found[key.digest] for key, name in keys.items() if key.digest in found}


def versions(records: Mapping[str, Record]) -> dict[str, int]:
    """The version of each record."""
    return {name: record.header.attributes["version"] for name, record in records.items()}


def num_wrong(records: Mapping[str, Record]) -> int:
    """Number of records that are not genuine."""
    return sum(not genuine(name, record) for name, record in records.items())
