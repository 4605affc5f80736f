"""Another key for a store: all of it or nothing, with the same records, cap and facts."""

from __future__ import annotations

from functools import partial
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from store_records import KIB, make_record

from benchmarks.torture.records import make_key, over, same
from kamera_agent.chunk import Record
from kamera_agent.errors import StoreKeyError, StoreUnavailableError
from kamera_agent.secret import SecretSource
from kamera_agent.store.environment import DATABASE, Environment
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.rekey import rekey

pytest.importorskip("cryptography", reason="needs the extra encryption")

CAP_BYTES = 120 * KIB
FIRST, SECOND = (lambda: bytes(range(32))), (lambda: bytes(range(32, 64)))
RECORDS = [
    make_record("b"),
    make_record("b/p", **over("b")),
    *(make_record(f"r{i}", [(3, KIB)]) for i in range(4)),
]
CHANGES: list[tuple[SecretSource | None, SecretSource]] = [(None, FIRST), (FIRST, SECOND)]


def fill(folder: Path, key: SecretSource | None) -> None:
    with LmdbStore(folder, CAP_BYTES, key=key) as store:
        store.put_many(RECORDS)
        store.flush()
        store.get_many([make_key("r2")])
        store.pin(make_key("r1").digest)
        store.set_policy("lfu")


def content(folder: Path, key: SecretSource | None) -> tuple[object, list[Record], int]:
    with LmdbStore(folder, key=key) as store:
        assert store.check().problems == ()
        records = sorted(store.records(store.headers()), key=lambda record: record.header.key.digest)
        assert store.pins() == {make_key("r1").digest}
        assert store.policy == "lfu"
        # What stands for a namespace depends on the key.
        entries = {digest: entry._replace(namespace=b"") for digest, entry in store.entries().items()}
        return entries, records, store.stats().cap_bytes


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=["plain", "encrypted"])
def test_everything_is_as_it_was_but_for_the_key(old: SecretSource | None, new: SecretSource, tmp_path: Path) -> None:
    fill(tmp_path, old)
    entries, records, cap_bytes = content(tmp_path, old)
    killed = tmp_path / ".rekey-of-a-killed-run"
    killed.mkdir()
    assert rekey(tmp_path, old, new) == (len(RECORDS), 0)
    after = content(tmp_path, new)
    assert (after[0], after[2]) == (entries, cap_bytes)
    assert all(same(left, right) for left, right in zip(after[1], records, strict=True))
    with pytest.raises(StoreKeyError):
        LmdbStore(tmp_path, key=old)
    assert list(tmp_path.glob(".rekey-*")) == []
    assert make_key("r2").material.encode() not in (tmp_path / DATABASE).read_bytes()
    with LmdbStore(tmp_path, key=new) as store:
        store.put_many([make_record("r4", [(3, KIB)])])
        assert store.check().num_records < len(RECORDS) + 1


@pytest.mark.parametrize("error", [StoreUnavailableError("the disk is full"), KeyboardInterrupt(), OSError("disk")])
def test_a_failure_leaves_the_store_as_it_was(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, FIRST)
    before = content(tmp_path, FIRST)
    write = Environment.write

    def fail(self: Environment, change: object) -> object:
        if self.path != tmp_path and isinstance(change, partial) and change.func.__name__ == "_put":
            raise error
        return write(self, change)

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "write", fail)
        with pytest.raises((StoreUnavailableError, KeyboardInterrupt)):
            rekey(tmp_path, FIRST, SECOND)
    assert content(tmp_path, FIRST)[0] == before[0]
    assert list(tmp_path.glob(".rekey-*")) == []


def test_a_wrong_old_key_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, FIRST)
    for old in (SECOND, None):
        with pytest.raises(StoreKeyError):
            rekey(tmp_path, old, SECOND)
    assert len(content(tmp_path, FIRST)[1]) == len(RECORDS)


def test_damaged_records_are_left_out_and_counted(tmp_path: Path) -> None:
    """A patch goes with its damaged base."""
    fill(tmp_path, None)
    with LmdbStore(tmp_path) as store:
        tables = store._database.tables
        store._database.write(lambda txn: txn.put(make_key("b").digest + bytes(4), b"x", db=tables.values))
    assert rekey(tmp_path, None, FIRST) == (len(RECORDS) - 2, 2)
    assert len(content(tmp_path, FIRST)[1]) == len(RECORDS) - 2


def hold(folder: Path, opened: Event, done: Event) -> None:
    with LmdbStore(folder):
        opened.set()
        done.wait(60)


def test_a_store_in_use_is_refused(tmp_path: Path, forkserver: ForkServerContext) -> None:
    fill(tmp_path, None)
    opened, done = forkserver.Event(), forkserver.Event()
    child = forkserver.Process(target=hold, args=(tmp_path, opened, done))
    child.start()
    try:
        assert opened.wait(60)
        with pytest.raises(StoreUnavailableError, match="is in use by another process"):
            rekey(tmp_path, None, FIRST)
    finally:
        done.set()
        child.join()
    assert rekey(tmp_path, None, FIRST) == (len(RECORDS), 0)
