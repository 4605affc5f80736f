"""Every store against the contract in store/base.py."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from store_records import AWKWARD_SHAPES, KIB, make_record, record_of_bytes

from benchmarks.torture.records import bits, make_key, over, same
from kamera_agent.chunk import Header, Key, Record
from kamera_agent.errors import SettingError, StoreClosedError
from kamera_agent.store.base import Store
from kamera_agent.store.manifest import DTYPE_NAMES


def get(store: Store, record: Record) -> Record | None:
    return store.get_many([record.header.key]).get(record.header.key.digest)


MakeStore = Callable[..., Store]


class TestRoundTrip:
    @pytest.mark.parametrize("flushed", [False, True], ids=["queued", "flushed"])
    @pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
    def test_every_dtype_and_awkward_shape_is_bit_equal(self, store: Store, dtype: torch.dtype, flushed: bool) -> None:
        record = make_record("awkward", AWKWARD_SHAPES, dtype, num_layers=3)
        store.put_many([record])
        if flushed:
            store.flush()
        assert same(get(store, record), record)

    def test_a_layer_may_mix_dtypes_so_that_tensors_start_unaligned(self, store: Store) -> None:
        odd = torch.arange(7, dtype=torch.uint8)
        layers = [
            [odd, torch.ones(3, dtype=torch.float64)],
            [],
            [odd, torch.ones(1, dtype=torch.bfloat16), odd],
        ]
        record = Record.of(make_key("mixed"), make_key("chunk").digest, "base", layers)
        store.put_many([record])
        store.flush()
        assert same(get(store, record), record)

    def test_ranks_differ_between_layers_and_may_be_zero(self, store: Store) -> None:
        layers = [[torch.randn(63, rank), torch.randn(rank, 128)] for rank in (0, 1, 16, 0, 5)]
        attributes = {"ranks": [0, 1, 16, 0, 5], "energy": 0.5, "error": float("inf"), "exact": True}
        base = make_record("base")
        digest = base.header.key.digest
        record = Record.of(make_key("patch"), digest, "patch", layers, attributes, digest)
        store.put_many([base, record])
        store.flush()
        assert same(get(store, record), record)

    def test_a_record_without_layers(self, store: Store) -> None:
        record = Record.of(make_key("empty"), make_key("empty").digest, "base", [])
        store.put_many([record])
        store.flush()
        assert same(get(store, record), record)

    def test_a_layer_larger_than_one_value(self, store: Store) -> None:
        record = make_record("large", [(5, 1_000_003), (12_345_678,)], torch.uint8, num_layers=1)
        store.put_many([record])
        store.flush()
        assert same(get(store, record), record)

    def test_many_at_once(self, store: Store) -> None:
        records = [make_record(f"r{i}", [(i, 33)]) for i in range(40)]
        store.put_many(iter(records[:30]))
        store.flush()
        found = store.get_many([record.header.key for record in records])
        assert set(found) == {record.header.key.digest for record in records[:30]}
        assert all(same(found[record.header.key.digest], record) for record in records[:30])

    def test_tensors_outlive_the_store(self, make_store: MakeStore) -> None:
        store, record = make_store(), make_record("survivor")
        store.put_many([record])
        store.flush()
        found = get(store, record)
        store.close()
        assert same(found, record)


class TestIdentity:
    @pytest.mark.parametrize("flushed", [False, True], ids=["queued", "flushed"])
    def test_other_material_under_the_same_digest_is_a_miss(self, store: Store, flushed: bool) -> None:
        record = make_record("genuine")
        store.put_many([record])
        if flushed:
            store.flush()
        forged = Key(record.header.key.digest, record.header.key.material + " ")
        assert store.get_many([forged]) == {}
        assert same(get(store, record), record)

    def test_a_put_replaces_the_record_of_the_same_key(self, store: Store) -> None:
        for seed, shape in enumerate([(4, 4), (100, 7), (1,), (4, 4)]):
            record = make_record("again", [shape], seed=seed)
            store.put_many([record])
            assert same(get(store, record), record)
            store.flush()
            assert same(get(store, record), record)
        assert store.stats().num_records == 1
        assert store.check().problems == ()

    def test_delete_forgets_stored_and_queued_records_and_ignores_unknown_ones(self, store: Store) -> None:
        stored, queued, kept = (make_record(name) for name in ("stored", "queued", "kept"))
        store.put_many([stored, kept])
        store.flush()
        store.put_many([queued])
        store.delete([stored.header.key, queued.header.key, make_key("unknown")])
        assert store.get_many([stored.header.key, queued.header.key]) == {}
        store.flush()
        assert store.get_many([stored.header.key, queued.header.key]) == {}
        assert same(get(store, kept), kept)
        store.put_many([stored])
        assert same(get(store, stored), stored)


class TestHeaders:
    def test_headers_by_chunk_and_of_all_with_what_is_queued(self, store: Store) -> None:
        chunks = [make_key(f"chunk{i}").digest for i in range(3)]
        records = [make_record(f"r{i}", chunk=chunks[i % 3], attributes={"place": i}) for i in range(12)]
        store.put_many(records[:6])
        store.flush()
        store.put_many(records[6:])
        store.delete([records[0].header.key])
        left = records[1:]

        def by_digest(headers: list[Header]) -> list[Header]:
            return sorted(headers, key=lambda header: header.key.digest)

        assert by_digest(store.headers()) == by_digest([record.header for record in left])
        for chunk in chunks:
            expected = [record.header for record in left if record.header.chunk == chunk]
            assert by_digest(store.headers(chunk)) == by_digest(expected)
        assert store.headers(make_key("no such chunk").digest) == []


class TestBases:
    """Patches "p" and "q" over base "b", and base "other" with its patch "r"."""

    @pytest.fixture(params=[False, True], ids=["queued", "flushed"])
    def filled(self, store: Store, request: pytest.FixtureRequest) -> Store:
        bases = {"p": "b", "q": "b", "r": "other"}
        store.put_many([make_record("b"), make_record("other")])
        store.put_many(make_record(name, **over(base)) for name, base in bases.items())
        if request.param:
            store.flush()
        return store

    @staticmethod
    def names(store: Store) -> str:
        """The initials of all records by their headers, which must agree with what is read."""
        names = {make_key(name): name for name in ("b", "p", "q", "other", "r")}
        found = {header.key for header in store.headers()}
        assert set(store.get_many(list(found))) == {key.digest for key in found}
        assert store.check().problems == ()
        return "".join(sorted(names[key][0] for key in found))

    def test_a_patch_keeps_its_base_in_its_header(self, filled: Store) -> None:
        (patch,) = [h for h in filled.headers(make_key("other").digest) if h.kind == "patch"]
        assert patch == make_record("r", **over("other")).header
        assert self.names(filled) == "bopqr"

    def test_deleting_a_base_deletes_its_patches(self, filled: Store) -> None:
        filled.delete([make_key("b")])
        assert filled.headers(make_key("b").digest) == []
        filled.flush()
        assert self.names(filled) == "or"
        assert filled.get_many([make_key("p"), make_key("q")]) == {}

    def test_deleting_a_patch_leaves_its_base(self, filled: Store) -> None:
        filled.delete([make_key("p")])
        filled.flush()
        assert self.names(filled) == "boqr"

    @pytest.mark.parametrize("changes", [{"seed": 1}, {"attributes": {"chain": "ab"}}], ids=["tensors", "attributes"])
    def test_another_base_under_the_same_key_drops_the_patches(self, filled: Store, changes: dict[str, Any]) -> None:
        base = make_record("b", **changes)
        filled.put_many([base])
        filled.flush()
        assert self.names(filled) == "bor"
        assert same(get(filled, base), base)
        filled.put_many([make_record("q", **over("b"))])
        filled.flush()
        assert self.names(filled) == "boqr"

    def test_an_equal_base_keeps_the_patches(self, filled: Store) -> None:
        filled.put_many([make_record("b")])
        filled.flush()
        assert self.names(filled) == "bopqr"

    def test_another_patch_under_the_same_key_replaces_only_itself(self, filled: Store) -> None:
        patch = make_record("p", seed=1, **over("b"))
        filled.put_many([patch])
        filled.flush()
        assert self.names(filled) == "bopqr"
        assert same(get(filled, patch), patch)

    def test_a_patch_without_its_base_is_dropped(self, store: Store) -> None:
        store.put_many([make_record("p", **over("b"))])
        assert store.headers() == []
        store.flush()
        assert self.names(store) == ""
        assert store.stats().evictions == 1
        store.put_many([make_record("b")])
        assert self.names(store) == "b"

    def test_a_base_above_the_cap_takes_the_patches_of_the_old_one_along(self, make_capped: MakeStore) -> None:
        store = make_capped(40 * KIB)
        store.put_many([make_record("b"), make_record("p", **over("b"))])
        store.put_many([record_of_bytes("b", 41 * KIB)])
        store.flush()
        assert self.names(store) == ""

    def test_a_patch_in_use_keeps_its_base(self, make_tier: MakeStore) -> None:
        store = make_tier(50 * KIB)
        store.put_many([record_of_bytes("b", 10 * KIB), record_of_bytes("other", 10 * KIB)])
        store.put_many([record_of_bytes("p", 10 * KIB, **over("b")), record_of_bytes("q", 10 * KIB, **over("b"))])
        store.put_many([record_of_bytes("r", 10 * KIB, **over("other"))])
        store.flush()
        store.use([make_key("p")])
        store.put_many([record_of_bytes("b2", 30 * KIB)])
        store.flush()
        left = {header.key for header in store.headers()}
        assert left == {make_key(name) for name in ("b", "p", "b2")}


class Reference:
    """The content of an LRU store by brute force: all records, least recently used first.

    A base follows right after the last used of its patches, and they go with it.
    """

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes = cap_bytes
        self.records: OrderedDict[bytes, Record] = OrderedDict()

    @staticmethod
    def size(record: Record) -> int:
        return max(4096, sum(t.numel() * t.element_size() for layer in record.layers for t in layer))

    @property
    def num_bytes(self) -> int:
        return sum(self.size(record) for record in self.records.values())

    def put(self, record: Record) -> None:
        key, base = record.header.key, record.header.base
        if key.digest in self.records and not same(self.records[key.digest], record):
            self.remove(key)
        if self.size(record) > self.cap_bytes or (base and base not in self.records):
            return
        self.records[key.digest] = record
        self.get(key)
        while self.num_bytes > self.cap_bytes:
            self.remove(next(iter(self.records.values())).header.key)

    def remove(self, key: Key) -> None:
        for record in list(self.records.values()):
            if key.digest in (record.header.key.digest, record.header.base):
                del self.records[record.header.key.digest]

    def get(self, key: Key) -> Record | None:
        record = self.records.get(key.digest)
        if record is not None:
            self.records.move_to_end(key.digest)
            if record.header.base:
                self.records.move_to_end(record.header.base)
        return record


class TestCap:
    @pytest.mark.parametrize("seed", range(4))
    def test_random_operations_keep_what_an_lru_list_keeps(self, make_tier: MakeStore, seed: int) -> None:
        """1. The list, by brute force. 2. The store, flushed after each put. Equal throughout."""
        cap_bytes, rng = 64 * KIB, random.Random(seed)
        store, reference = make_tier(cap_bytes), Reference(cap_bytes)
        bases = [f"r{i}" for i in range(10)]
        names = bases + [f"{base}/{i}" for base in bases[:5] for i in range(3)]
        for step in range(200):
            name, action = rng.choice(names), rng.random()
            if action < 0.5:
                base, _, is_patch = name.partition("/")
                num_bytes = rng.choice([1, 5000, 9000] if is_patch else [1, 5000, 9000, 20_000, 60_000, 70_000])
                fields = over(base) if is_patch else {}
                record = record_of_bytes(name, num_bytes, seed=rng.choice([0, step]), **fields)
                store.put_many([record])
                store.flush()
                reference.put(record)
            elif action < 0.8:
                found = store.get_many([make_key(name)]).get(make_key(name).digest)
                expected = reference.get(make_key(name))
                assert (found is None) == (expected is None)
                assert found is None or same(found, expected)
            elif action < 0.9:
                store.use([make_key(name)])
                reference.get(make_key(name))
            else:
                store.delete([make_key(name)])
                reference.remove(make_key(name))
            stats = store.stats()
            assert (stats.num_records, stats.num_bytes) == (len(reference.records), reference.num_bytes)
        assert {header.key.digest for header in store.headers()} == set(reference.records)
        assert store.check().problems == ()

    def test_the_cap_holds_after_one_large_batch(self, make_capped: MakeStore) -> None:
        store = make_capped(100 * KIB)
        store.put_many(record_of_bytes(f"r{i}", 30 * KIB) for i in range(10))
        store.flush()
        stats = store.stats()
        assert (stats.num_records, stats.num_bytes, stats.cap_bytes) == (3, 90 * KIB, 100 * KIB)
        assert {h.key for h in store.headers()} == {make_key(f"r{i}") for i in (7, 8, 9)}
        assert stats.evictions == 7

    def test_a_used_record_stays_and_is_not_counted_as_read(self, make_capped: MakeStore) -> None:
        store = make_capped(100 * KIB)
        for i in range(3):
            store.put_many([record_of_bytes(f"r{i}", 30 * KIB)])
        store.flush()
        store.use([make_key("r0"), make_key("unknown")])
        store.put_many([record_of_bytes("r3", 30 * KIB)])
        store.flush()
        assert {header.key for header in store.headers()} == {make_key(f"r{i}") for i in (0, 2, 3)}
        stats = store.stats()
        assert (stats.hits, stats.misses, stats.bytes_read) == (0, 0, 0)

    def test_a_record_above_the_cap_is_not_stored_and_replaces_nothing_by_half(self, make_capped: MakeStore) -> None:
        store = make_capped(10 * KIB)
        store.put_many([record_of_bytes("r", 5 * KIB), record_of_bytes("other", 2 * KIB)])
        store.put_many([record_of_bytes("r", 11 * KIB)])
        store.flush()
        assert store.get_many([make_key("r")]) == {}
        stats = store.stats()
        assert (stats.num_records, stats.failed_writes) == (1, 1)

    def test_a_cap_of_zero_keeps_nothing(self, make_capped: MakeStore) -> None:
        store = make_capped(0)
        store.put_many([make_record("r")])
        store.flush()
        assert get(store, make_record("r")) is None

    def test_a_negative_cap_is_refused(self, make_capped: MakeStore) -> None:
        with pytest.raises(SettingError, match="cap_bytes is -"):
            make_capped(-4)


class TestReports:
    def test_stats_count_what_happened(self, store: Store) -> None:
        records = [record_of_bytes(f"r{i}", 5000) for i in range(3)]
        store.put_many(records)
        store.flush()
        store.get_many([make_key(name) for name in ("r0", "r1", "absent")])
        store.get_many([make_key("r0")])
        stats = store.stats()
        assert (stats.num_records, stats.num_bytes) == (3, 15_000)
        assert (stats.hits, stats.misses, stats.bytes_read, stats.bytes_written) == (3, 1, 15_000, 15_000)
        assert (stats.evictions, stats.quarantined, stats.failed_writes) == (0, 0, 0)

    def test_stats_include_what_is_queued(self, store: Store) -> None:
        store.put_many([record_of_bytes("r0", 5000)])
        store.flush()
        store.put_many([record_of_bytes("r0", 6000), record_of_bytes("r1", 7000)])
        assert (store.stats().num_records, store.stats().num_bytes) == (2, 13_000)

    def test_check_counts_every_record(self, store: Store) -> None:
        store.put_many(record_of_bytes(f"r{i}", 5000) for i in range(5))
        report = store.check()
        assert (report.num_records, report.num_bytes, report.problems) == (5, 25_000, ())


class TestClose:
    def test_close_is_idempotent_and_everything_else_raises(self, make_store: MakeStore) -> None:
        store, record = make_store(), make_record("r")
        store.put_many([record])
        store.close()
        store.close()
        for call in (
            lambda: store.get_many([record.header.key]),
            lambda: store.put_many([record]),
            lambda: store.delete([record.header.key]),
            lambda: store.use([record.header.key]),
            store.headers,
            store.flush,
            store.stats,
            store.check,
        ):
            with pytest.raises(StoreClosedError, match="closed"):
                call()


def test_threads_read_and_write_at_once(make_store: MakeStore) -> None:
    """Six threads use 12 keys: every record that the store serves was put under its key."""
    store, errors = make_store(80 * KIB), []
    versions = {
        make_key(f"r{i}").digest: [record_of_bytes(f"r{i}", 4096 * (1 + i % 4), seed) for seed in range(3)]
        for i in range(12)
    }
    genuine = {digest: [bits(record) for record in records] for digest, records in versions.items()}

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(60):
                records = [rng.choice(rng.choice(list(versions.values()))) for _ in range(3)]
                if rng.random() < 0.5:
                    store.put_many(records)
                elif rng.random() < 0.2:
                    store.delete([records[0].header.key])
                for digest, record in store.get_many([record.header.key for record in records]).items():
                    assert bits(record) in genuine[digest]
        except Exception as error:  # noqa: BLE001 - whatever it was, the main thread shall see it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    store.flush()
    report = store.check()
    assert report.problems == ()
    assert (report.num_records, report.num_bytes) == (store.stats().num_records, store.stats().num_bytes)


def test_header_fields_survive(store: Store) -> None:
    record = make_record("r", attributes={"nested": {"a": [1, 2.5, None, "ü"]}, "nan": 1e300})
    record = replace(record, header=replace(record.header, chunk=make_key("elsewhere").digest))
    store.put_many([record])
    store.flush()
    assert get(store, record).header == record.header
