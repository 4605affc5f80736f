"""What two tiers do together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from store_records import KIB, make_key, make_record, record_of_bytes, same

from kamera_agent.chunk import Key, Record
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.tiered import TieredStore


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[TieredStore]:
    store = TieredStore(MemoryStore(10 * KIB), LmdbStore(tmp_path, 40 * KIB))
    yield store
    store.close()


def test_a_record_read_from_disk_is_served_by_memory_the_next_time(tiers: TieredStore) -> None:
    record = record_of_bytes("r", 8 * KIB)
    tiers.put_many([record, record_of_bytes("pushes it out of memory", 8 * KIB)])
    tiers.flush()
    for from_memory, from_disk in ((0, 1), (1, 1)):
        assert same(tiers.get_many([record.header.key])[record.header.key.digest], record)
        assert (tiers.memory.stats().hits, tiers.disk.stats().hits) == (from_memory, from_disk)


def test_stats_count_every_key_once(tiers: TieredStore) -> None:
    tiers.put_many([record_of_bytes(f"r{i}", 8 * KIB) for i in range(3)])
    tiers.flush()
    tiers.get_many([make_key(name) for name in ("r0", "r1", "r2", "absent")])
    stats = tiers.stats()
    assert (stats.hits, stats.misses, stats.bytes_read) == (3, 1, 24 * KIB)
    assert (stats.num_records, stats.num_bytes, stats.cap_bytes) == (3, 24 * KIB, 40 * KIB)
    assert (stats.bytes_written, stats.evictions, stats.failed_writes) == (24 * KIB, 0, 0)


def test_what_memory_serves_counts_as_used_on_disk(tiers: TieredStore) -> None:
    hot = record_of_bytes("r0", 10 * KIB)
    for i in range(10):
        tiers.put_many([record_of_bytes(f"r{i}", 10 * KIB)])
        tiers.flush()
        assert same(tiers.get_many([hot.header.key])[hot.header.key.digest], hot)
        tiers.get_many([hot.header.key])
    left = {header.key for header in tiers.disk.headers()}
    assert left == {make_key(name) for name in ("r0", "r7", "r8", "r9")}


def test_a_read_overtaken_by_a_put_does_not_bring_back_the_old_record(
    tiers: TieredStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_record("r", seed=1), make_record("r", seed=2)
    tiers.put_many([old])
    tiers.flush()
    tiers.memory.delete([old.header.key])
    read_disk = tiers.disk.get_many

    def overtaken(keys: Sequence[Key]) -> dict[bytes, Record]:
        found = read_disk(keys)
        tiers.put_many([new])
        return found

    monkeypatch.setattr(tiers.disk, "get_many", overtaken)
    assert same(tiers.get_many([old.header.key])[old.header.key.digest], old)
    assert same(tiers.get_many([old.header.key])[old.header.key.digest], new)


def test_memory_serves_what_the_disk_lost(tiers: TieredStore) -> None:
    record = make_record("r")
    tiers.put_many([record])
    tiers.flush()
    tiers.disk.delete([record.header.key])
    tiers.flush()
    assert same(tiers.get_many([record.header.key])[record.header.key.digest], record)
    assert tiers.headers() == [record.header]
