"""Archives: what is written is read back, and a hostile file is one error, in bounded memory."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from store_records import AWKWARD_SHAPES, make_record, record_of_bytes
from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from benchmarks.torture.records import make_key, over, same
from kamera_agent.chunk import Record
from kamera_agent.errors import ArchiveError
from kamera_agent.store.archive import MAGIC, MAX_HEADER_BYTES, read_archive, write_archive
from kamera_agent.store.codec import encode

RECORDS = [
    make_record("base", AWKWARD_SHAPES, torch.bfloat16),
    make_record("base/p", [(63, 5), (5, 32)], **over("base")),
    record_of_bytes("large", 20_000_000),
    Record.of(make_key("empty"), make_key("empty").digest, "base", []),
]
NUM_FLIPS = 300


def written(records: list[Record]) -> bytes:
    file = io.BytesIO()
    assert write_archive(file, records) == len(records)
    return file.getvalue()


SMALL = written([RECORDS[0], RECORDS[1], RECORDS[3]])


def read(data: bytes, folder: Path) -> list[Record]:
    (folder / "archive").write_bytes(data)
    with (folder / "archive").open("rb") as file:
        return list(read_archive(file))


def test_records_come_back_in_order(tmp_path: Path) -> None:
    found = read(written(RECORDS), tmp_path)
    assert [same(left, right) for left, right in zip(found, RECORDS, strict=True)] == [True] * len(RECORDS)
    assert read(written([]), tmp_path) == []


def test_the_layout_is_that_of_the_documents() -> None:
    """Read by hand, with nothing of the package."""
    encoded = encode(RECORDS[0])
    record = struct.pack(">I", len(encoded.header)) + encoded.header + b"".join(v.tobytes() for v in encoded.values)
    head = b"kamera-archive 1\n" + record + bytes(4) + struct.pack(">Q", 1)
    assert written(RECORDS[:1]) == head + blake3(head).digest()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(NUM_FLIPS):
        data = bytearray(SMALL)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(ArchiveError):
            read(bytes(data), tmp_path)


def test_every_cut_and_every_addition_is_found(tmp_path: Path) -> None:
    for size in {*range(0, len(SMALL), 97), *range(len(SMALL) - 50, len(SMALL))}:
        with pytest.raises(ArchiveError, match=r"cut short|does not begin"):
            read(SMALL[:size], tmp_path)
    with pytest.raises(ArchiveError, match="changed after it was written"):
        read(SMALL + b"\0", tmp_path)


def archive_of(*parts: bytes, count: int = 1) -> bytes:
    """A file of hostile parts whose sums are right."""
    data = MAGIC + b"".join(parts) + bytes(4) + struct.pack(">Q", count)
    return data + blake3(data).digest()


def header(record: Record, edit: Callable[[dict[str, Any]], Any]) -> bytes:
    fields = json.loads(encode(record).header[16:])
    edit(fields)
    body = json.dumps(fields).encode()
    return struct.pack(">I", 16 + len(body)) + xxh3_128_digest(body) + body


def empty_layer(shape: list[int]) -> dict[str, Any]:
    return {"tensors": [{"dtype": "uint8", "shape": shape}], "values": []}


ONE = record_of_bytes("one", 64)
VALUE = bytes(encode(ONE).values[0])
HOSTILE = {
    "a header larger than any": struct.pack(">I", MAX_HEADER_BYTES + 1) + bytes(64),
    "a header of four gigabytes": struct.pack(">I", 0xFFFFFFFF),
    "a header that is too short": struct.pack(">I", 3) + b"abc",
    "nested deeper than any stack": struct.pack(">I", 100_016) + xxh3_128_digest(b"[" * 100_000) + b"[" * 100_000,
    "a terabyte in a header": header(
        ONE,
        lambda f: f.update(
            layers=[
                {
                    "tensors": [{"dtype": "uint8", "shape": [1 << 40]}],
                    "values": [{"num_bytes": 1 << 24, "checksum": "0" * 32}] * (1 << 16),
                }
            ]
        ),
    ),
    "a shape that no memory holds": header(ONE, lambda f: f.update(layers=[empty_layer([0, 1 << 62, 1 << 62])])),
    "a shape whose strides overflow": header(ONE, lambda f: f.update(layers=[empty_layer([0, 1 << 39, 1 << 39])])),
    "a shape of many axes": header(ONE, lambda f: f.update(layers=[empty_layer([0] * 100)])),
    "another key than that of the material": header(ONE, lambda f: f.update(digest="ab" * 32)) + VALUE,
    "a material that was changed": header(ONE, lambda f: f.update(material=f["material"] + " ")) + VALUE,
    "a patch without its base": header(ONE, lambda f: f.update(kind="patch", base="ab" * 32)) + VALUE,
    "a value of other bytes": header(ONE, lambda f: None) + VALUE[::-1],
    "a sum of other bytes": header(
        ONE, lambda f: f["layers"][0]["values"][0].update(checksum=xxh3_128_hexdigest(bytes(64)))
    )
    + VALUE,
    "a later version": header(ONE, lambda f: f.update(format_version=f["format_version"] + 1)) + VALUE,
    "a path": header(ONE, lambda f: f.update(file="../../etc/passwd")) + VALUE,
}


@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_one_error_in_bounded_memory(parts: bytes, tmp_path: Path) -> None:
    data = archive_of(parts)
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            read(data, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 64e6
    finally:
        tracemalloc.stop()


def test_a_wrong_count_is_an_error(tmp_path: Path) -> None:
    parts = header(ONE, lambda fields: None) + VALUE
    assert len(read(archive_of(parts), tmp_path)) == 1
    with pytest.raises(ArchiveError, match="another number"):
        read(archive_of(parts, count=2), tmp_path)
