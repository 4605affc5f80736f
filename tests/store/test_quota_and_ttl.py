"""What each namespace may hold, and how long a record is kept: against a model in Python, and what they are for."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb
import pytest
import torch
from store_records import KIB, Clock, random_tensor

from kamera_agent.chunk import Key, Record
from kamera_agent.errors import SettingError
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.rekey import rekey

NAMES = [f"{namespace}{number}{patch}" for namespace in "ab" for number in range(4) for patch in ("", "/p", "/q")]
S_NS = 10**9


def key_of(name: str) -> Key:
    """A base "a1" is in namespace "a". The key of a patch "a1/p" names none, as those of a window do."""
    return Key.of(name=name) if "/" in name else Key.of(name=name, namespace=name[0])


def record_of(name: str, num_bytes: int, version: int = 0) -> Record:
    base = key_of(name.partition("/")[0]).digest
    fields: dict[str, Any] = {"kind": "patch", "base": base} if "/" in name else {"kind": "base"}
    tensor = random_tensor((num_bytes,), torch.uint8, seed=version)
    return Record.of(key_of(name), base, layers=[[tensor]], **fields)


def put(store: LmdbStore, name: str, num_bytes: int, version: int = 0) -> None:
    store.put_many([record_of(name, num_bytes, version)])
    store.flush()


def names(store: LmdbStore) -> set[str]:
    known = {key_of(name): name for name in NAMES}
    return {known[header.key] for header in store.headers()}


@dataclass
class Kept:
    """A record of the model: its content, what it counts, when it was put, and used."""

    content: tuple[int, int]
    num_bytes: int
    put_ns: int
    tick: int


class Model:
    """A store that evicts the least recently used: each record is looked at for each question."""

    def __init__(self, cap_bytes: int) -> None:
        self.cap_bytes, self.ttl_s = cap_bytes, 0
        self.quota_bytes: int | None = None
        self.own: dict[str, int] = {}
        self.kept: dict[str, Kept] = {}

    def sums(self) -> Counter[str]:
        sums = Counter[str]()
        for name, kept in self.kept.items():
            sums[name[0]] += kept.num_bytes
        return sums

    def live(self, now: int) -> set[str]:
        """The names that are no miss: neither they nor their bases have expired."""

        def is_live(name: str) -> bool:
            return not self.ttl_s or self.kept[name].put_ns >= now - self.ttl_s * S_NS

        return {name for name in self.kept if is_live(name) and is_live(name.partition("/")[0])}

    def remove(self, name: str) -> None:
        for other in [other for other in self.kept if other == name or other.startswith(f"{name}/")]:
            del self.kept[other]

    def use(self, name: str, now: int) -> None:
        if name in self.kept:
            self.kept[name].tick = now
            self.kept[name.partition("/")[0]].tick = now + ("/" in name)

    def put(self, name: str, num_bytes: int, version: int, now: int) -> None:
        content, live = (num_bytes, version), self.live(now)
        # Nothing says of which namespace a patch without its base is.
        is_known = name.partition("/")[0] in {*self.kept, name}
        if max(num_bytes, 4096) > min(self.cap_bytes, self.quota_of(name[0] if is_known else "") or self.cap_bytes):
            self.remove(name)
            return
        if name not in live or self.kept[name].content != content:
            self.remove(name)
            if name.partition("/")[0] in live | {name}:
                self.kept[name] = Kept(content, max(num_bytes, 4096), now, now)
        self.use(name, now)
        self.tidy(now)

    def tidy(self, now: int) -> None:
        for name in set(self.kept) - self.live(now):
            self.remove(name)
        self.keep_quotas()
        self.evict(self.cap_bytes, "")

    def quota_of(self, namespace: str) -> int | None:
        return self.own.get(namespace, self.quota_bytes)

    def keep_quotas(self) -> None:
        for namespace in self.sums():
            if quota_bytes := self.quota_of(namespace):
                self.evict(quota_bytes, namespace)

    def evict(self, max_bytes: int, namespace: str) -> None:
        def mine() -> list[str]:
            return [name for name in self.kept if name.startswith(namespace)]

        while sum(self.kept[name].num_bytes for name in mine()) > max_bytes:
            self.remove(min(mine(), key=lambda name: self.kept[name].tick))


@pytest.mark.parametrize("seed", range(6))
def test_a_store_does_as_a_model_that_looks_at_every_record(seed: int, tmp_path: Path, clock: Clock) -> None:
    """1. The model. 2. A store with the same operations, closed and opened again now and then, in the clear or not."""
    rng, cap_bytes = random.Random(seed), 100 * KIB
    key = (lambda: bytes(32)) if seed % 2 else None
    if key:
        pytest.importorskip("cryptography", reason="needs the extra encryption")
    model, store = Model(cap_bytes), LmdbStore(tmp_path, cap_bytes, key=key)
    num_gone = Counter[str]()
    for _ in range(250):
        clock.now += rng.choice([1, 5, 30]) * S_NS
        name, action = rng.choice(NAMES), rng.random()
        if action < 0.5:
            size, version = rng.choice([100, 9 * KIB, 17 * KIB, 45 * KIB]), rng.choice([0, 0, 0, 1])
            put(store, name, size, version)
            model.put(name, size, version, clock.now)
        elif action < 0.8:
            found = store.get_many([key_of(name)])
            assert (key_of(name).digest in found) == (name in model.live(clock.now))
            if found:
                model.use(name, clock.now)
        elif action < 0.86:
            quota, namespace = rng.choice([None, 40 * KIB, 60 * KIB]), rng.choice([None, "a"])
            store.set_quota(quota, namespace)
            if namespace is None:
                model.quota_bytes = quota
            elif quota is None:
                model.own.pop(namespace, None)
            else:
                model.own[namespace] = quota
            model.keep_quotas()
        elif action < 0.92:
            ttl_s = rng.choice([None, 100, 300])
            store.set_ttl(ttl_s)
            model.ttl_s = ttl_s or 0
            for expired in set(model.kept) - model.live(clock.now):
                model.remove(expired)
        else:
            store.close()
            store = LmdbStore(tmp_path, key=key)
            for expired in set(model.kept) - model.live(clock.now):
                model.remove(expired)
        num_gone["expired"] += len(set(model.kept) - model.live(clock.now))
        assert names(store) == model.live(clock.now)
        assert store.stats().num_bytes == sum(model.sums().values())
        database, sums = store._database, {database_name(store, name): held for name, held in model.sums().items()}
        assert database.read(database.tables.held_by_namespace) == sums
        assert store.quotas() == model.own
    assert num_gone["expired"] > 0
    assert store.stats().evictions + store.stats().num_records > 0
    assert store.check().problems == ()
    store.close()


def database_name(store: LmdbStore, namespace: str) -> bytes:
    return store._database.name_of(namespace)


@pytest.mark.parametrize("policy", ["lru", "lfu", "cost"])
def test_a_namespace_above_its_quota_gives_way_and_no_other_does(policy: Any, tmp_path: Path, clock: Clock) -> None:
    """The records of "b" are older and were used less, but "a" is the one that fills the store."""
    with LmdbStore(tmp_path, 100 * KIB, policy=policy, quota_bytes=50 * KIB) as store:
        put(store, "b0", 20 * KIB)
        put(store, "b1", 20 * KIB)
        for number in range(4):
            clock.now += S_NS
            put(store, f"a{number}", 20 * KIB)
            store.get_many([key_of(f"a{number}")] * 3)
    with LmdbStore(tmp_path) as store:
        assert store.quota_bytes == 50 * KIB
        assert {"b0", "b1"} < names(store)
        assert len(names(store)) == 4
        store.set_quota(20 * KIB)
        assert len(names(store)) == 2
        put(store, "a0", 30 * KIB)
        assert store.stats().failed_writes == 1
        store.set_quota(None)
        put(store, "a0", 70 * KIB)
        assert "a0" in names(store)


def test_a_namespace_has_a_quota_of_its_own(tmp_path: Path, clock: Clock) -> None:
    """It may hold more than the others, or less; the others are bounded as before."""
    with LmdbStore(tmp_path, 200 * KIB, quota_bytes=40 * KIB) as store:
        store.set_quota(80 * KIB, "a")
        for number in range(4):
            put(store, f"a{number}", 20 * KIB)
            put(store, f"b{number}", 20 * KIB)
    with LmdbStore(tmp_path) as store:
        assert (store.quotas(), store.quota_bytes) == ({"a": 80 * KIB}, 40 * KIB)
        assert names(store) == {"a0", "a1", "a2", "a3", "b2", "b3"}
        put(store, "b0", 60 * KIB)
        assert store.stats().failed_writes == 1
        put(store, "a0", 60 * KIB)
        assert names(store) == {"a0", "a3", "b2", "b3"}
        store.set_quota(60 * KIB, "a")
        assert names(store) == {"a0", "b2", "b3"}
        store.set_quota(None, "a")
        assert names(store) == {"b2", "b3"}


def test_a_damaged_quota_of_a_namespace_is_reported(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, 200 * KIB) as store:
        store.set_quota(40 * KIB, "tenant")
    for change, number, quotas in ((b"tenan\xff", 1, {}), (b"tenan", 1, {}), (b"tenant", 0, {"tenant": 40 * KIB})):
        path = str(tmp_path / DATABASE)
        with lmdb.open(path, subdir=False, max_dbs=9) as environment, environment.begin(write=True) as txn:
            totals = environment.open_db(b"totals", txn)
            row = next(row for row, _ in txn.cursor(totals) if row.startswith(b"quota"))
            txn.put(row, 2 * (40 * KIB).to_bytes(8, "big") + change, db=totals)
        with LmdbStore(tmp_path) as store:
            assert store.quotas() == quotas
            assert len(store.check().problems) == number


def test_what_was_stored_too_long_ago_is_a_miss_though_it_is_used_and_pinned(tmp_path: Path, clock: Clock) -> None:
    """A patch goes with its base. The same content that is put again then is new."""
    with LmdbStore(tmp_path, 100 * KIB, ttl_s=60) as store:
        put(store, "a0", 100)
        store.pin(key_of("a0").digest)
        clock.now += 40 * S_NS
        put(store, "a0/p", 100)
        assert len(store.get_many([key_of("a0"), key_of("a0/p")])) == 2
        clock.now += 19 * S_NS
        assert names(store) == {"a0", "a0/p"}
        clock.now += 2 * S_NS
        assert names(store) == set()
        assert store.get_many([key_of("a0"), key_of("a0/p")]) == {}
        assert store.stats().num_records == 2
        put(store, "a0", 100)
        assert names(store) == {"a0"}
        clock.now += 50 * S_NS
        assert names(store) == {"a0"}


def test_what_only_reads_removes_nothing_that_has_expired(tmp_path: Path, clock: Clock) -> None:
    with LmdbStore(tmp_path, 100 * KIB, ttl_s=60) as store:
        put(store, "a0", 100)
    clock.now += 61 * S_NS
    with LmdbStore(tmp_path, repair=False) as store:
        assert (store.headers(), store.stats().num_records) == ([], 1)
    with LmdbStore(tmp_path) as store:
        assert store.stats().num_records == 0


def test_another_key_keeps_quota_ttl_and_namespaces(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra encryption")
    with LmdbStore(tmp_path, 100 * KIB, quota_bytes=30 * KIB, ttl_s=1000) as store:
        store.set_quota(20 * KIB, "a")
        store.set_quota(10 * KIB, "not there yet")
        put(store, "a0", 9 * KIB)
        put(store, "a0/p", 5 * KIB)
        put(store, "b0", 100)
        before = store._database.read(store._database.tables.held_by_namespace)
    assert rekey(tmp_path, None, lambda: bytes(32)) == (3, 0)
    with LmdbStore(tmp_path, key=lambda: bytes(32)) as store:
        assert (store.quota_bytes, store.ttl_s) == (30 * KIB, 1000)
        assert store.quotas() == {"a": 20 * KIB, "not there yet": 10 * KIB}
        held = store._database.read(store._database.tables.held_by_namespace)
        assert held == {database_name(store, "a"): 14 * KIB, database_name(store, "b"): 4 * KIB}
        assert set(held).isdisjoint(before)
        assert store.check().problems == ()


@pytest.mark.parametrize("wrong", [{"ttl_s": 0}, {"ttl_s": 1.5}, {"ttl_s": 10**11}, {"quota_bytes": -1}], ids=str)
def test_values_that_mean_nothing_are_refused_before_anything_is_made(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(SettingError, match=f"{name} is"):
        LmdbStore(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()
