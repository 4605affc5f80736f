"""Bytes that `encode` did not write are refused, whatever the damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from store_records import AWKWARD_SHAPES, make_record, random_tensor
from xxhash import xxh3_128_digest

from benchmarks.torture.records import make_key
from kamera_agent.chunk import FORMAT_VERSION, Record
from kamera_agent.errors import CorruptRecordError, InputError
from kamera_agent.store.codec import decode_header, decode_layers, encode, require_storable

RECORD = make_record("r", AWKWARD_SHAPES, torch.float16)
BLOB = encode(RECORD).header


def sealed(body: bytes) -> bytes:
    return xxh3_128_digest(body) + body


def edited(edit: Callable[[dict[str, Any]], Any]) -> bytes:
    """A header with a change, under a matching checksum."""
    fields = json.loads(BLOB[16:])
    edit(fields)
    return sealed(json.dumps(fields).encode())


BAD_HEADERS = {
    "empty": b"",
    "shorter than a checksum": BLOB[:9],
    "truncated": BLOB[:-1],
    "longer": BLOB + b" ",
    "not JSON": sealed(b"\x80\x04K\x01."),
    "not an object": sealed(b"[]"),
    "wrong magic": edited(lambda f: f.update(magic="kamera-records")),
    "later version": edited(lambda f: f.update(format_version=FORMAT_VERSION + 1)),
    "earlier version": edited(lambda f: f.update(format_version=FORMAT_VERSION - 1)),
    "a patch without a base": edited(lambda f: f.update(kind="patch")),
    "a base with a base": edited(lambda f: f.update(base="ab" * 32)),
    "unknown kind": edited(lambda f: f.update(kind="other")),
    "unknown field": edited(lambda f: f.update(extra=1)),
    "missing field": edited(lambda f: f.pop("material")),
    "digest too short": edited(lambda f: f.update(digest="ab")),
    "dtype not listed": edited(lambda f: f["layers"][0]["tensors"][3].update(dtype="object")),
    "negative size": edited(lambda f: f["layers"][0]["tensors"][3].update(shape=[-1])),
    "tensors larger than their values": edited(lambda f: f["layers"][0]["tensors"][3].update(shape=[64])),
    "value too large": edited(lambda f: f["layers"][0]["values"][0].update(num_bytes=1 << 40)),
}


@pytest.mark.parametrize("blob", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_a_bad_header_is_refused(blob: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="header"):
        decode_header(blob)


def test_an_unchanged_header_is_read() -> None:
    assert decode_header(edited(lambda fields: None)).header == RECORD.header


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: None, "value 1 is missing"),
        (lambda value: value[:-1], "bytes long"),
        (lambda value: value + b"\0", "bytes long"),
        (lambda value: bytes([value[0] ^ 128]) + value[1:], "checksum of value 1"),
        (lambda value: value[::-1], "checksum of value 1"),
    ],
    ids=["missing", "shorter", "longer", "flipped", "reversed"],
)
def test_a_bad_value_is_refused(spoil: Callable[[bytes], bytes | None], message: str) -> None:
    values: list[bytes | None] = [value.tobytes() for value in encode(RECORD).values]
    values[1] = spoil(values[1])
    with pytest.raises(CorruptRecordError, match=message):
        decode_layers(decode_header(BLOB), lambda n: None if values[n] is None else memoryview(values[n]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            Record.of(make_key("r"), bytes(32), "base", [[torch.zeros(2, dtype=torch.complex64)]]),
            "complex64",
        ),
        (Record.of(make_key("r"), bytes(32), "base", [[torch.zeros(2, device="meta")]]), "on meta"),
        (Record.of(make_key("r"), bytes(32), "base", [], {"tensor": {1, 2}}), "not JSON"),
        (Record.of(make_key("r"), bytes(32), "patch", []), "has base None"),
        (Record.of(make_key("r"), bytes(32), "base", [], base=bytes(32)), "kind 'base' has base"),
    ],
    ids=["dtype", "device", "attributes", "patch", "base"],
)
def test_what_cannot_be_written_is_refused_before_it_is_taken(record: Record, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_storable(record)


def test_values_are_cut_and_layers_without_bytes_have_none() -> None:
    large = random_tensor((40_000_001,), torch.uint8, seed=1)
    record = Record.of(make_key("large"), bytes(32), "base", [[torch.empty(0, 3)], [large], []])
    encoded = encode(record)
    assert [value.size for value in encoded.values] == [1 << 24, 1 << 24, 40_000_001 - (1 << 25)]
    layers = decode_layers(decode_header(encoded.header), lambda number: encoded.values[number].data)
    assert [len(tensors) for tensors in layers] == [1, 1, 0]
    assert torch.equal(layers[1][0], large)
