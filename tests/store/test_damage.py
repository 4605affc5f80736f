"""A record with a flipped bit is never served: it is a miss, quarantined and counted, and a put heals it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
import torch
from store_records import make_record, record_of_bytes

from benchmarks.torture.records import bits, make_key, over, same
from kamera_agent.chunk import Record
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

NUM_FLIPS = 200
CAP_BYTES = 1 << 27

RECORDS = [
    make_record("small", [(1, 3, 5), (7,)], torch.bfloat16, num_layers=3),
    make_record("medium", [(2, 63, 4), (2, 63, 4)], torch.float32),
    make_record("large", [(2, 217, 16), (2, 217, 16)], torch.float16, num_layers=4),
    record_of_bytes("single", 10_001),
    make_record("patch", [(63, 5), (5, 32)], torch.float32, attributes={"ranks": [5, 5]}, **over("large")),
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file without free pages: every byte of a record that is found in it is read."""
    folder = tmp_path_factory.mktemp("pristine")
    with LmdbStore(folder, CAP_BYTES) as store:
        store.put_many(RECORDS)
    with lmdb.open(str(folder / DATABASE), subdir=False, lock=False) as environment:
        environment.copy(str(folder / "compact"), compact=True)
    return (folder / "compact").read_bytes()


def header_ranges(data: bytes) -> Iterator[range]:
    """The places of headers: a checksum of 16 bytes, then JSON that begins with the magic word."""
    for match in re.finditer(rb'\{"magic":"kamera-record"', data):
        end = json.JSONDecoder().raw_decode(data[match.start() :].decode("latin-1"))[1]
        yield range(match.start() - 16, match.start() + end)


def value_ranges(data: bytes, record: Record) -> Iterator[range]:
    """The places of a record's values: the tensors of a layer, back to back."""
    for tensors in record.layers:
        value = b"".join(raw for _, _, raw in bits(Record(record.header, (tensors,))))
        yield from (range(m.start(), m.end()) for m in re.finditer(re.escape(value), data))


def places(data: bytes) -> list[range]:
    values = [place for record in RECORDS for place in value_ranges(data, record)]
    return values + list(header_ranges(data))


def test_the_places_are_found(pristine: bytes) -> None:
    num_values = sum(len(record.layers) for record in RECORDS)
    assert len(list(header_ranges(pristine))) == len(RECORDS)
    assert len(places(pristine)) >= num_values + len(RECORDS)


def test_flipped_bits(pristine: bytes, tmp_path: Path) -> None:
    """1. Flip one random bit of a record in a copy of the file. 2. Open it and read every record. 3. Heal it."""
    rng, where, num_misses = random.Random(0), places(pristine), 0
    (tmp_path / f"{DATABASE}-lock").touch()
    for _ in range(NUM_FLIPS):
        data = bytearray(pristine)
        data[rng.choice(rng.choice(where))] ^= 1 << rng.randrange(8)
        (tmp_path / DATABASE).write_bytes(data)
        store = LmdbStore(tmp_path, CAP_BYTES)
        reported = store.check().problems if rng.random() < 0.5 else None
        found = store.get_many([record.header.key for record in RECORDS])
        store.flush()
        assert all(same(found[r.header.key.digest], r) for r in RECORDS if r.header.key.digest in found)
        whole = {header.key.digest for header in store.headers()}
        missing = [record for record in RECORDS if record.header.key.digest not in whole]
        # A patch is whole and useless if its base is damaged.
        damaged = [record for record in missing if record.header.base is None or len(missing) == 1]
        assert len(damaged) <= 1
        assert reported is None or len(reported) == len(damaged)
        assert store.stats().quarantined == len(damaged)
        assert store.stats().num_records == len(whole)
        store.put_many(missing)
        store.flush()
        healed = store.get_many([record.header.key for record in RECORDS])
        assert all(same(healed[record.header.key.digest], record) for record in RECORDS)
        assert store.check().problems == ()
        store.close()
        num_misses += len(missing)
    assert num_misses > NUM_FLIPS / 2, f"only {num_misses} flips hit live bytes: this test has no teeth"


def test_headers_leaves_a_damaged_record_out_and_quarantines_it(pristine: bytes, tmp_path: Path) -> None:
    data = bytearray(pristine)
    data[next(header_ranges(pristine))[40]] ^= 4
    (tmp_path / DATABASE).write_bytes(data)
    store = LmdbStore(tmp_path, CAP_BYTES)
    assert len(store.headers()) == len(RECORDS) - 1
    assert store.stats().quarantined == 1
    store.flush()
    assert store.check().problems == ()
    assert store.stats().num_records == len(RECORDS) - 1
    store.close()


def test_without_repair_damage_is_named_and_stays(
    pristine: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The damaged record is a miss; only a store that repairs removes it."""
    data = bytearray(pristine)
    data[next(value_ranges(pristine, RECORDS[3]))[5000]] ^= 1
    (tmp_path / DATABASE).write_bytes(data)
    for repair, num_left in ((False, len(RECORDS)), (False, len(RECORDS)), (True, len(RECORDS) - 1)):
        with LmdbStore(tmp_path, repair=repair) as store:
            assert len(store.check().problems) == 1
            assert store.get_many([make_key("single")]) == {}
            store.flush()
            assert store.stats().num_records == num_left
            assert store.stats().quarantined == int(repair)
        assert "the checksum of value 0 (10001 bytes) does not match" in caplog.text
        caplog.clear()


def test_patches_over_a_damaged_base_go_with_it(pristine: bytes, tmp_path: Path) -> None:
    data = bytearray(pristine)
    data[next(value_ranges(pristine, RECORDS[2]))[100]] ^= 1
    (tmp_path / DATABASE).write_bytes(data)
    store = LmdbStore(tmp_path, CAP_BYTES)
    assert {header.key for header in store.headers(make_key("large").digest)} == {make_key("large"), make_key("patch")}
    assert store.get_many([make_key("large")]) == {}
    assert store.headers(make_key("large").digest) == []
    store.flush()
    assert store.get_many([make_key("patch")]) == {}
    assert (store.stats().num_records, store.stats().quarantined) == (len(RECORDS) - 2, 1)
    store.put_many([RECORDS[2]])
    store.flush()
    assert [header.key for header in store.headers(make_key("large").digest)] == [make_key("large")]
    store.close()


def test_damage_is_noted_with_its_reason(pristine: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(pristine)
    data[next(value_ranges(pristine, RECORDS[3]))[5000]] ^= 1
    (tmp_path / DATABASE).write_bytes(data)
    store = LmdbStore(tmp_path, CAP_BYTES)
    assert store.get_many([make_key("single")]) == {}
    store.close()
    assert "the checksum of value 0 (10001 bytes) does not match" in caplog.text
    assert b"the checksum of value 0 (10001 bytes) does not match" in (tmp_path / DATABASE).read_bytes()
