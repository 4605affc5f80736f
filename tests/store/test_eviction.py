"""What goes first when a store is full, by every policy: against brute force, and what it is for."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_records import KIB, Clock, record_of_bytes

from benchmarks.torture.records import make_key, over
from kamera_agent.config import Policy
from kamera_agent.errors import SettingError
from kamera_agent.store.entry import Entry
from kamera_agent.store.eviction import GRACE_NS, POLICIES, order
from kamera_agent.store.lmdb_store import LmdbStore

SIZE = 20 * KIB
CAP_BYTES = 5 * SIZE
HOUR_NS = 3600 * 10**9
NAME = bytes(16)


def names(store: LmdbStore) -> set[str]:
    known = {make_key(name): name for name in ["page", "old", "b", "p", "q", *(f"r{i}" for i in range(40))]}
    return {known[header.key] for header in store.headers()}


def visit(store: LmdbStore, clock: Clock, count: int) -> None:
    """So many screenshots that are seen once, a minute apart."""
    for number in range(count):
        clock.now += 60 * 10**9
        store.put_many([record_of_bytes(f"r{number}", SIZE)])
        store.flush()


@pytest.mark.parametrize(("policy", "stays"), [("lru", False), ("lfu", True), ("cost", True)])
def test_a_page_that_is_used_often_outlives_what_is_seen_once(
    policy: Policy, stays: bool, tmp_path: Path, clock: Clock
) -> None:
    """Also after a restart. With lru, five screenshots push it out."""
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.set_policy(policy)
        store.put_many([record_of_bytes("page", SIZE)])
        store.flush()
        for _ in range(20):
            store.get_many([make_key("page")])
    with LmdbStore(tmp_path) as store:
        assert store.policy == policy
        visit(store, clock, 12)
        assert ("page" in names(store)) == stays
        assert len(names(store)) == 5


@pytest.mark.parametrize("policy", ["lfu", "cost"])
def test_what_was_used_often_long_ago_goes_in_the_end(policy: Policy, tmp_path: Path, clock: Clock) -> None:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.set_policy(policy)
        store.put_many([record_of_bytes("old", SIZE)])
        store.flush()
        for _ in range(20):
            store.use([make_key("old")])
        clock.now += 60 * HOUR_NS
        visit(store, clock, 12)
        assert "old" not in names(store)


def test_cost_prefers_what_takes_few_bytes_for_the_same_work() -> None:
    """A thick patch goes before a thin one that was used longer ago; by uses alone, the other way round."""
    base, thick, thin = (bytes([number]) * 32 for number in range(3))
    entries = {
        base: Entry(40, 40 * KIB, 1, 0, NAME, base, None),
        thick: Entry(30, 20 * KIB, 1, 0, NAME, base, base),
        thin: Entry(20, 4 * KIB, 1, 0, NAME, base, base),
    }
    assert order(entries, "cost", (), 50) == [thick, thin, base]
    assert order(entries, "lfu", (), 50) == [thin, thick, base]


def brute_order(entries: dict[bytes, Entry], worth: Callable[[Entry], float], pins: set[bytes]) -> list[bytes]:
    """The least worth first, a base after the last of its patches, pinned chunks last; by search, step by step."""
    left, gone = dict(entries), list[bytes]()
    while left:
        free = [d for d, e in left.items() if e.base or not any(o.base == d for o in left.values())]
        best = {d: max([worth(entries[d]), *(worth(o) for o in entries.values() if o.base == d)]) for d in free}
        gone.append(min(free, key=lambda d: (left[d].chunk in pins, best[d], not left[d].base, left[d].tick)))
        del left[gone[-1]]
    return gone


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_a_search(policy: Policy, seed: int) -> None:
    rng, now = random.Random(seed), 100 * HOUR_NS
    entries: dict[bytes, Entry] = {}
    ticks = rng.sample(range(1, now), 40)
    for number in range(10):
        base = bytes([number]) * 32
        entries[base] = Entry(0, rng.choice([4096, 50_000]), rng.randrange(now), rng.randrange(9), NAME, base, None)
        for place in range(rng.randrange(4)):
            digest = bytes([number, place]) * 16
            entries[digest] = Entry(
                ticks.pop(), rng.choice([4096, 9000]), rng.randrange(now), rng.randrange(9), NAME, base, base
            )
        last = max([e.tick for e in entries.values() if e.base == base], default=ticks.pop())
        entries[base] = entries[base]._replace(tick=last + 1)
    pins = set(rng.sample([digest for digest, entry in entries.items() if not entry.base], 2))

    def frequency(entry: Entry) -> float:
        return (entry.hits + 1) / (now - entry.put_ns + GRACE_NS)

    def cost(entry: Entry) -> float:
        whole = entries[entry.base] if entry.base else entry
        return frequency(entry) * whole.num_bytes / entry.num_bytes

    worth = {"lru": lambda entry: entry.tick, "lfu": frequency, "cost": cost}[policy]
    assert order(entries, policy, pins, now) == brute_order(entries, worth, pins)


@pytest.mark.parametrize("policy", ["lfu", "cost"])
def test_random_operations_leave_whole_tables_within_the_cap(policy: Policy, tmp_path: Path) -> None:
    rng = random.Random(0)
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.set_policy(policy)
        for _ in range(60):
            name = rng.choice(["b", "old", "r1", "r2"])
            patch = rng.choice(["", "/p", "/q"])
            fields = over(name) if patch else {}
            store.put_many([record_of_bytes(name + patch, rng.choice([4096, SIZE, 2 * SIZE]), **fields)])
            store.get_many([make_key(rng.choice(["b", "old", "b/p"]))])
            if rng.random() < 0.3:
                store.pin(make_key(rng.choice(["b", "old"])).digest)
            store.flush()
            assert store.stats().num_bytes <= CAP_BYTES
        assert store.check().problems == ()
        assert store.stats().evictions > 0


def test_an_unknown_policy_is_refused_and_a_later_one_is_lru(tmp_path: Path) -> None:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        assert store.policy == "lru"
        for wrong in ("fifo", 5, None):
            with pytest.raises(SettingError, match="use one of lru, lfu, cost"):
                store.set_policy(wrong)
        tables = store._database.tables
        store._database.write(lambda txn: txn.put(b"policy", b"of the future\xff", db=tables.totals))
        assert store.policy == "lru"
