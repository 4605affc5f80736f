"""Two tiers as one store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from store_records import KIB, make_record, record_of_bytes

from benchmarks.torture.records import make_key, same
from kamera_agent.chunk import Key, Record
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.tiered import TieredStore


@pytest.fixture
def tiers(tmp_path: Path) -> Iterator[TieredStore]:
    store = TieredStore(MemoryStore(10 * KIB), LmdbStore(tmp_path, 40 * KIB))
    yield store
    store.close()


def test_a_record_of_the_lower_tier_is_served_by_the_upper_one_the_next_time(tiers: TieredStore) -> None:
    record = record_of_bytes("r", 8 * KIB)
    tiers.put_many([record, record_of_bytes("pushes it out of the upper tier", 8 * KIB)])
    tiers.flush()
    for from_upper, from_lower in ((0, 1), (1, 1)):
        assert same(tiers.get_many([record.header.key])[record.header.key.digest], record)
        assert (tiers.upper.stats().hits, tiers.lower.stats().hits) == (from_upper, from_lower)


def test_stats_count_every_key_once(tiers: TieredStore) -> None:
    tiers.put_many([record_of_bytes(f"r{i}", 8 * KIB) for i in range(3)])
    tiers.flush()
    tiers.get_many([make_key(name) for name in ("r0", "r1", "r2", "absent")])
    stats = tiers.stats()
    assert (stats.hits, stats.misses, stats.bytes_read) == (3, 1, 24 * KIB)
    assert (stats.num_records, stats.num_bytes, stats.cap_bytes) == (3, 24 * KIB, 40 * KIB)
    assert (stats.bytes_written, stats.evictions, stats.failed_writes) == (24 * KIB, 0, 0)


def test_a_record_that_the_upper_tier_serves_counts_as_used_in_the_lower_one(tiers: TieredStore) -> None:
    hot = record_of_bytes("r0", 10 * KIB)
    for i in range(10):
        tiers.put_many([record_of_bytes(f"r{i}", 10 * KIB)])
        tiers.flush()
        assert same(tiers.get_many([hot.header.key])[hot.header.key.digest], hot)
        tiers.get_many([hot.header.key])
    left = {header.key for header in tiers.lower.headers()}
    assert left == {make_key(name) for name in ("r0", "r7", "r8", "r9")}


def test_use_reaches_both_tiers(tmp_path: Path) -> None:
    """Of two records, the older one is used and so stays in each tier when a third one comes."""
    store = TieredStore(MemoryStore(20 * KIB), LmdbStore(tmp_path, 20 * KIB))
    for name in ("old", "new"):
        store.put_many([record_of_bytes(name, 10 * KIB)])
    store.flush()
    store.use([make_key("old")])
    store.put_many([record_of_bytes("third", 10 * KIB)])
    store.flush()
    for tier in (store.upper, store.lower):
        assert {header.key for header in tier.headers()} == {make_key("old"), make_key("third")}
    store.close()


def test_any_store_may_be_the_lower_tier(tmp_path: Path) -> None:
    """Three tiers: what the two upper ones forgot comes back from the lowest and is kept in each of them."""
    middle, lowest = LmdbStore(tmp_path, 10 * KIB), MemoryStore(40 * KIB)
    store = TieredStore(MemoryStore(10 * KIB), TieredStore(middle, lowest))
    records = [record_of_bytes(f"r{i}", 10 * KIB) for i in range(3)]
    store.put_many(records)
    store.flush()
    assert [header.key for header in middle.headers()] == [make_key("r2")]
    assert same(store.get_many([make_key("r0")])[make_key("r0").digest], records[0])
    store.flush()
    for tier in (store.upper, middle):
        assert [header.key for header in tier.headers()] == [make_key("r0")]
    assert store.stats().num_records == 3
    store.close()


def test_a_read_overtaken_by_a_put_does_not_bring_back_the_old_record(
    tiers: TieredStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make_record("r", seed=1), make_record("r", seed=2)
    tiers.put_many([old])
    tiers.flush()
    tiers.upper.delete([old.header.key])
    read_lower = tiers.lower.get_many

    def overtaken(keys: Sequence[Key]) -> dict[bytes, Record]:
        found = read_lower(keys)
        tiers.put_many([new])
        return found

    monkeypatch.setattr(tiers.lower, "get_many", overtaken)
    assert same(tiers.get_many([old.header.key])[old.header.key.digest], old)
    assert same(tiers.get_many([old.header.key])[old.header.key.digest], new)


def test_the_upper_tier_serves_a_record_that_the_lower_one_lost(tiers: TieredStore) -> None:
    record = make_record("r")
    tiers.put_many([record])
    tiers.flush()
    tiers.lower.delete([record.header.key])
    tiers.flush()
    assert same(tiers.get_many([record.header.key])[record.header.key.digest], record)
    assert tiers.headers() == [record.header]
