"""The disk tier alone: restarts, folders that cannot be opened, and disks that fail later."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import resource
import stat
import struct
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

import lmdb
import pytest
from store_records import KIB, make_record, record_of_bytes

from benchmarks.torture.records import make_key, over, same
from kamera_agent.config import MIB
from kamera_agent.errors import SettingError, StoreClosedError, StoreUnavailableError
from kamera_agent.store import capacity, environment
from kamera_agent.store.environment import DATABASE, LOCK_BYTES, Environment
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.tables import Tables

CAP_BYTES = 100 * KIB


class TestReopening:
    def test_order_of_use_and_totals_survive(self, tmp_path: Path) -> None:
        """1. Put r0..r4, read r1 then r0, close. 2. Reopen; two more push out r2 and r3."""
        store = LmdbStore(tmp_path, CAP_BYTES)
        store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(5))
        store.flush()
        for name in ("r1", "r0"):
            store.get_many([make_key(name)])
        before = store.stats()
        store.close()
        store = LmdbStore(tmp_path, CAP_BYTES)
        after = store.stats()
        assert (after.num_records, after.num_bytes) == (before.num_records, before.num_bytes) == (5, 100 * KIB)
        store.put_many(record_of_bytes(name, 20 * KIB) for name in ("r5", "r6"))
        store.flush()
        assert {header.key for header in store.headers()} == {make_key(f"r{i}") for i in (0, 1, 4, 5, 6)}
        assert store.check().problems == ()
        store.close()

    def test_uses_are_counted_across_restarts(self, tmp_path: Path) -> None:
        """Reads and uses, queued and stored; a put of the same content keeps the count, another one begins anew."""
        record, other = make_record("r"), make_record("other")
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([record, other])
            store.get_many([record.header.key])
            store.flush()
            store.get_many([record.header.key, other.header.key])
            store.use([record.header.key, make_key("unknown")])
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            first = store.entries()
            assert {digest: entry.hits for digest, entry in first.items()} == {
                record.header.key.digest: 3,
                other.header.key.digest: 1,
            }
            store.put_many([record, make_record("other", seed=1)])
            second = store.entries()
        again, anew = (second[each.header.key.digest] for each in (record, other))
        assert (again.hits, again.put_ns) == (3, first[record.header.key.digest].put_ns)
        assert (anew.hits, anew.put_ns) == (0, anew.tick)
        assert anew.put_ns > first[other.header.key.digest].put_ns

    def test_close_writes_what_is_queued(self, tmp_path: Path) -> None:
        records = [make_record(f"r{i}") for i in range(20)]
        store = LmdbStore(tmp_path, CAP_BYTES * 10)
        store.put_many(records)
        store.close()
        store = LmdbStore(tmp_path, CAP_BYTES * 10)
        found = store.get_many([record.header.key for record in records])
        assert all(same(found[record.header.key.digest], record) for record in records)
        store.close()

    @pytest.mark.parametrize("wish", [40 * KIB, 10 * CAP_BYTES, None], ids=["smaller", "larger", "none"])
    def test_a_store_keeps_its_cap(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, wish: int | None) -> None:
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(5))
        with LmdbStore(tmp_path, wish) as store:
            assert store.stats().cap_bytes == CAP_BYTES
            store.put_many([record_of_bytes("r5", 20 * KIB)])
            store.flush()
            assert {header.key for header in store.headers()} == {make_key(f"r{i}") for i in range(1, 6)}
        assert [record.message for record in caplog.records] == (
            []
            if wish is None
            else [
                f"the store {tmp_path} holds up to {CAP_BYTES} bytes and keeps that cap, not the {wish} asked for; "
                "`kamera resize` changes it."
            ]
        )

    def test_resizing_sets_the_cap_and_evicts_down_to_it(self, tmp_path: Path) -> None:
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(5))
            store.flush()
            store.resize(40 * KIB)
            assert {header.key for header in store.headers()} == {make_key("r3"), make_key("r4")}
            assert (store.stats().cap_bytes, store.stats().evictions) == (40 * KIB, 3)
            with pytest.raises(SettingError, match="cap_bytes is -1"):
                store.resize(-1)
        with LmdbStore(tmp_path) as store:
            assert store.stats().cap_bytes == 40 * KIB
            store.resize(600 * MIB)
            store.put_many(record_of_bytes(f"large{i}", 10 * MIB) for i in range(3))
            assert store.check().num_records == 5

    def test_pinned_chunks_are_evicted_after_all_others(self, tmp_path: Path) -> None:
        """1. Pin r0, used longest ago, and p's base. 2. Others push out each other, also after a restart. 3. Unpin."""

        def names(store: LmdbStore) -> set[str]:
            known = {make_key(name): name for name in [*(f"r{i}" for i in range(12)), "b", "p"]}
            return {known[header.key] for header in store.headers()}

        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([record_of_bytes("r0", 20 * KIB), record_of_bytes("b", 20 * KIB)])
            store.put_many([record_of_bytes("p", 20 * KIB, **over("b"))])
            for name in ("r0", "b", "r0"):
                store.pin(make_key(name).digest)
            store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(1, 6))
            store.flush()
            assert names(store) == {"r0", "b", "p", "r4", "r5"}
        with LmdbStore(tmp_path) as store:
            assert store.pins() == {make_key("r0").digest, make_key("b").digest}
            store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(6, 9))
            store.flush()
            assert names(store) == {"r0", "b", "p", "r7", "r8"}
            store.prune(unused_s=0)
            assert names(store) == {"r0", "b", "p"}
            # The cap holds even so: a pinned chunk goes when no other is left, and what is put finds no room.
            store.prune(max_bytes=40 * KIB)
            assert names(store) == {"b", "p"}
            store.resize(40 * KIB)
            store.put_many([record_of_bytes("r9", 20 * KIB)])
            store.flush()
            assert names(store) == {"b", "p"}
            store.unpin(make_key("b").digest)
            store.unpin(make_key("unknown").digest)
            store.put_many([record_of_bytes("r10", 20 * KIB)])
            store.flush()
            assert names(store) == {"b", "r10"}
            assert store.check().problems == ()

    def test_pruning_by_age_counts_no_uses(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A base that goes takes its patches with it, however new they are."""
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([make_record("b"), make_record("old")])
            store.flush()
            later = time.time_ns() + 100 * 10**9
            monkeypatch.setattr("time.time_ns", lambda: later)
            store.put_many([make_record("p", **over("b")), make_record("new")])
            store.get_many([make_key("old")])
            store.pin(make_key("old").digest)
            store.prune(stored_s=1000)
            assert len(store.headers()) == 4
            store.prune(stored_s=50)
            assert {header.key for header in store.headers()} == {make_key("new")}
            with pytest.raises(SettingError, match="stored_s is -1"):
                store.prune(stored_s=-1)

    def test_reading_evicts_nothing_even_above_the_cap(self, tmp_path: Path) -> None:
        """The store of an earlier version has no cap, and holds more than the default."""
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many(record_of_bytes(f"r{i}", 20 * KIB) for i in range(5))
            store.flush()
            database = store._database
            database.write(partial(database.tables.set_cap, 0))
            store.delete([make_key("r0")])
            store.get_many([make_key("r1")])
            store.flush()
            assert (store.check().num_records, store.stats().evictions) == (4, 0)


class TestFolder:
    def test_folder_and_files_are_private(self, tmp_path: Path) -> None:
        LmdbStore(tmp_path / "a" / "b", CAP_BYTES).close()
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "a" / "b" / DATABASE).stat().st_mode) == 0o600

    def test_the_names_of_a_new_store_are_durable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced, fsync = [], os.fsync

        def note(opened: int) -> None:
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                synced.append(Path(os.readlink(f"/proc/self/fd/{opened}")))
            fsync(opened)

        monkeypatch.setattr(os, "fsync", note)
        LmdbStore(tmp_path / "store", CAP_BYTES).close()
        assert synced == [tmp_path / "store", tmp_path]

    def test_home_is_expanded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        LmdbStore("~/cache", CAP_BYTES).close()
        assert (tmp_path / "cache" / DATABASE).exists()

    @pytest.mark.parametrize(
        ("free_bytes", "expected"),
        [(1000 * MIB, 100 * MIB), (10**15, 20 * 1024 * MIB)],
        ids=["tenth", "limit"],
    )
    def test_the_default_cap_is_a_tenth_of_the_free_disk_and_is_logged(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        free_bytes: int,
        expected: int,
    ) -> None:
        usage = namedtuple("usage", "free")(free_bytes)
        monkeypatch.setattr(capacity.shutil, "disk_usage", lambda folder: usage)
        with caplog.at_level(logging.INFO, "kamera_agent.store"):
            store = LmdbStore(tmp_path)
        assert store.stats().cap_bytes == expected
        assert f"may hold {expected // MIB} MiB" in caplog.text
        store.close()

    def test_a_negative_queue_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="queue_bytes is -1"):
            LmdbStore(tmp_path, queue_bytes=-1)


def write_format_1(folder: Path, num_bytes: int) -> bytes:
    """A store as the first format laid it out: data.mdb in the folder, tables by these names. Returns the file."""
    env = lmdb.open(str(folder), map_size=4 * MIB, max_dbs=7)
    names = ("headers", "values", "entries", "uses", "chunks", "totals", "quarantine")
    tables = {name: env.open_db(name.encode()) for name in names}
    digest = make_key("r").digest
    with env.begin(write=True) as txn:
        txn.put(digest, b'{"magic":"kamera-record","format_version":1}', db=tables["headers"])
        txn.put(digest + bytes(4), bytes(num_bytes), db=tables["values"])
        txn.put(digest, struct.pack(">QQ32s", 1, num_bytes, digest), db=tables["entries"])
        txn.put(bytes(8) + digest, b"", db=tables["uses"])
        txn.put(digest + digest, b"", db=tables["chunks"])
        txn.put(b"bytes", struct.pack(">q", num_bytes), db=tables["totals"])
    env.close()
    return (folder / "data.mdb").read_bytes()


def test_a_store_of_the_first_format_is_named_and_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = write_format_1(tmp_path, 2 * MIB)
    for expected in (0, 1):
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            assert store.stats().num_records == expected
            store.put_many([make_record("r")])
            assert store.check().problems == ()
    assert (tmp_path / "data.mdb").read_bytes() == before
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"{tmp_path / 'data.mdb'} holds chunks in an older format" in caplog.text
    assert "free 2 MiB" in caplog.text


def a_file(folder: Path) -> Path:
    folder.write_text("in the way")
    return folder


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "store"


def not_creatable(folder: Path) -> Path:
    return Path("/proc/no such folder")


def folder_for_data(folder: Path) -> Path:
    (folder / DATABASE).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("spoil", [a_file, below_a_file, not_creatable, folder_for_data])
def test_a_folder_that_cannot_be_opened_is_a_clear_error(tmp_path: Path, spoil: Callable[[Path], Path]) -> None:
    folder = spoil(tmp_path / "folder")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="local disk") as caught:
            LmdbStore(folder, CAP_BYTES)
        assert str(folder) in str(caught.value)


def write_beyond_file_limit(folder: Path) -> None:
    """Exit with code 0 when a full disk costs writes and nothing else."""
    store, early = LmdbStore(folder, 64 * MIB), record_of_bytes("early", 50 * KIB)
    store.put_many([early])
    store.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
    late = [record_of_bytes(f"late{i}", 500 * KIB) for i in range(10)]
    for record in late:
        store.put_many([record])
        store.flush()
    stats, found = store.stats(), store.get_many([r.header.key for r in [early, *late]])
    assert same(found[early.header.key.digest], early)
    assert stats.failed_writes > 0
    assert stats.failed_writes + stats.num_records == 11
    assert len(found) == stats.num_records
    assert store.check().problems == ()
    store.close()


class TestFullDisk:
    """LMDB maps the file of its locks, and a page of it for which there is no room on the disk would be fatal."""

    def test_the_locks_have_all_their_blocks(self, tmp_path: Path) -> None:
        with LmdbStore(tmp_path, CAP_BYTES):
            locks = (tmp_path / f"{DATABASE}-lock").stat()
            # As large as LMDB wants it, so that it did not enlarge it.
            assert locks.st_size == LOCK_BYTES
            assert locks.st_blocks * 512 >= locks.st_size

    def test_a_full_disk_is_an_error_at_opening(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            patch.setattr(lmdb, "open", lambda *_, **__: pytest.fail("too early"))
            with pytest.raises(StoreUnavailableError, match="No space left on device"):
                LmdbStore(tmp_path, CAP_BYTES)
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([make_record("r")])
            assert store.check().num_records == 1


def writes_through(fd: int, path: Path) -> bool:
    """Whether a descriptor of this process writes to a file so that each write is durable."""
    try:
        return Path(f"/proc/self/fd/{fd}").readlink() == path and bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC)
    except OSError:
        return False


class TestFailingDisk:
    def test_a_disk_that_takes_no_more_costs_writes_and_nothing_else(
        self, tmp_path: Path, forkserver: ForkServerContext
    ) -> None:
        child = forkserver.Process(target=write_beyond_file_limit, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == 0

    @pytest.mark.parametrize("error", [lmdb.DiskError("disk"), OSError(28, "no space"), MemoryError()], ids=repr)
    def test_a_failing_write_is_counted_and_reading_goes_on(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        error: Exception,
    ) -> None:
        store, stored, lost = LmdbStore(tmp_path, CAP_BYTES), make_record("stored"), make_record("lost")
        store.put_many([stored])
        store.flush()

        def fail(*_: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Environment, "write", fail)
            store.put_many([lost])
            store.flush()
        found = store.get_many([stored.header.key, lost.header.key])
        assert list(found) == [stored.header.key.digest]
        assert store.stats().failed_writes == 1
        assert f"{tmp_path} cannot be written" in caplog.text
        store.put_many([lost])
        assert store.check().num_records == 2
        store.close()

    def test_a_disk_that_fails_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "kamera_agent.store")

        def fail(*_: object, **__: object) -> None:
            raise lmdb.DiskError("I/O error")

        with LmdbStore(tmp_path, CAP_BYTES) as store:
            with monkeypatch.context() as patch:
                patch.setattr(Environment, "_run", fail)
                for i in range(20):
                    store.put_many([make_record(f"r{i}")])
                    store.flush()
                    store.get_many([make_key("r")])
            store.put_many([make_record("r")])
            store.flush()
            store.get_many([make_key("r")])
            assert (store.stats().failed_writes, store.stats().num_records) == (20, 1)
        said = [line.message.split(":")[0].removeprefix(f"the store {tmp_path} ") for line in caplog.records]
        assert sorted(said) == sorted(
            ["cannot be written; records are lost", "is written", "cannot be read", "is read again"]
        )
        assert not any(line.exc_info for line in caplog.records)

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
    def test_a_disk_that_fails_to_write_a_meta_page_costs_one_commit(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """LMDB then refuses all that comes until it is opened anew. 1. Its file of meta pages is made read-only."""
        stored, lost, later = (make_record(name) for name in ("stored", "lost", "later"))
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([stored])
            store.flush()
            metas = [fd for fd in map(int, os.listdir("/proc/self/fd")) if writes_through(fd, tmp_path / DATABASE)]
            read_only = os.open(tmp_path / DATABASE, os.O_RDONLY)
            os.dup2(read_only, metas[0])
            store.put_many([lost])
            store.flush()
            assert store.stats().failed_writes == 1
            found = store.get_many([stored.header.key, lost.header.key])
            assert list(found) == [stored.header.key.digest]
            store.put_many([later])
            store.flush()
            assert same(store.get_many([later.header.key])[later.header.key.digest], later)
            assert (store.check().problems, store.stats().failed_writes) == ((), 1)
        os.close(read_only)
        assert sum("cannot be written" in line.message for line in caplog.records) == 1

    @pytest.mark.parametrize("error", [lmdb.MemoryError("no memory"), lmdb.DiskError("I/O error")], ids=repr)
    def test_a_database_that_cannot_be_read_for_now_is_not_taken_for_damaged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        with LmdbStore(tmp_path, CAP_BYTES) as store:
            store.put_many([make_record("r")])
        with monkeypatch.context() as patch:
            patch.setattr(Tables, "problems", fail)
            with pytest.raises(StoreUnavailableError, match=str(error)):
                LmdbStore(tmp_path)
        with LmdbStore(tmp_path) as store:
            assert store.check().num_records == 1

    def test_a_failing_read_is_a_miss(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store, record = LmdbStore(tmp_path, CAP_BYTES), make_record("r")
        store.put_many([record])
        store.flush()

        def fail(*_: object, **__: object) -> None:
            raise lmdb.CorruptedError("page")

        with monkeypatch.context() as patch:
            patch.setattr(Environment, "_run", fail)
            assert store.get_many([record.header.key]) == {}
            assert store.headers() == []
            assert store.stats().num_records == 0
            assert store.check().problems != ()
        assert same(store.get_many([record.header.key])[record.header.key.digest], record)
        store.close()

    @pytest.mark.parametrize("max_kib", [30, 300])
    def test_the_cap_bounds_the_file_and_is_made_use_of(self, tmp_path: Path, max_kib: int) -> None:
        """Records of all sizes come, go and are replaced, four times what the store may hold."""
        rng, cap_bytes, num_put = random.Random(max_kib), 40 * max_kib * KIB, 0
        with LmdbStore(tmp_path, cap_bytes) as store:
            while num_put < 4 * cap_bytes:
                size = rng.randrange(1, max_kib) * KIB
                store.put_many([record_of_bytes(f"r{rng.randrange(100)}", size, seed=size)])
                num_put += size
                if rng.random() < 0.2:
                    store.delete([make_key(f"r{rng.randrange(100)}")])
            store.flush()
            stats = store.stats()
            assert (tmp_path / DATABASE).stat().st_size <= max(1.1 * cap_bytes, cap_bytes + 4 * MIB)
            assert stats.failed_writes == 0
            assert 0.8 * cap_bytes < stats.num_bytes <= cap_bytes
            assert store.check().problems == ()

    def test_a_full_map_evicts_and_tries_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The map is smaller than the cap, as when old readers keep the writer from reusing replaced pages."""
        monkeypatch.setattr(environment, "map_bytes", lambda cap_bytes: 2 * MIB)
        store = LmdbStore(tmp_path, 64 * MIB)
        for i in range(60):
            store.put_many([record_of_bytes(f"r{i}", 100 * KIB)])
            store.flush()
        stats = store.stats()
        assert stats.failed_writes == 0
        assert stats.evictions == 60 - stats.num_records
        assert stats.num_bytes == stats.num_records * 100 * KIB > 0
        assert make_key("r59") in {header.key for header in store.headers()}
        assert store.check().problems == ()
        store.close()

    def test_a_record_that_never_fits_the_map_is_counted_as_failed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(environment, "map_bytes", lambda cap_bytes: MIB)
        store = LmdbStore(tmp_path, 64 * MIB)
        store.put_many([record_of_bytes("huge", 3 * MIB)])
        store.flush()
        assert (store.stats().failed_writes, store.stats().num_records) == (1, 0)
        store.put_many([make_record("r")])
        assert store.check().num_records == 1
        store.close()


class TestQueue:
    def test_put_waits_while_the_queue_is_full_and_a_larger_record_is_let_in_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1. The writer is held up. 2. Two records fill the queue, the third waits. 3. All are written."""
        store, may_write, write = LmdbStore(tmp_path, MIB, 20 * KIB), threading.Event(), Environment.write
        monkeypatch.setattr(Environment, "write", lambda self, change: may_write.wait() and write(self, change))
        records = [record_of_bytes(f"r{i}", size * KIB) for i, size in enumerate([10, 10, 10, 50])]
        producer = threading.Thread(target=lambda: store.put_many(iter(records)))
        producer.start()
        while len(store.headers()) < 2:
            assert producer.is_alive()
        producer.join(timeout=0.2)
        assert producer.is_alive()
        assert len(store.headers()) == 2
        assert len(store.get_many([record.header.key for record in records])) == 2
        may_write.set()
        producer.join()
        assert store.check().num_records == 4
        store.close()

    def test_a_patch_that_waits_again_is_written_after_a_base_that_came_in_between(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1. The writer is held up with a first record. 2. A patch, its base and the patch again wait. 3. All go on."""
        may_write, write = threading.Event(), Environment.write
        base, patch = make_record("b"), make_record("p", seed=1, **over("b"))
        with LmdbStore(tmp_path, MIB) as store:
            monkeypatch.setattr(Environment, "write", lambda self, change: may_write.wait() and write(self, change))
            store.put_many([make_record("first")])
            store.put_many([make_record("p", **over("b")), base, patch])
            may_write.set()
            store.flush()
            assert same(store.get_many([patch.header.key])[patch.header.key.digest], patch)
            assert (store.stats().num_records, store.stats().evictions) == (3, 0)

    def test_a_patch_that_waits_between_the_end_of_its_base_and_another_base_is_dropped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1. The writer is held up. 2. A base is deleted, its patch is put, another base is put. 3. All go on."""
        may_write, write = threading.Event(), Environment.write
        base, patch = make_record("b", seed=1), make_record("p", **over("b"))
        with LmdbStore(tmp_path, MIB) as store:
            monkeypatch.setattr(Environment, "write", lambda self, change: may_write.wait() and write(self, change))
            store.put_many([make_record("first"), make_record("b")])
            store.delete([base.header.key])
            store.put_many([patch, base])
            assert patch.header.key.digest not in store.get_many([patch.header.key])
            may_write.set()
            store.flush()
            found = store.get_many([base.header.key, patch.header.key])
            assert same(found[base.header.key.digest], base)
            assert patch.header.key.digest not in found

    def test_closing_one_store_while_another_thread_puts_loses_nothing_by_half(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path, 64 * MIB, 20 * KIB)
        records = [record_of_bytes(f"r{i}", 10 * KIB) for i in range(300)]
        outcome: list[Exception | None] = []

        def produce() -> None:
            try:
                store.put_many(iter(records))
                outcome.append(None)
            except Exception as error:  # noqa: BLE001 - the type is what is looked at
                outcome.append(error)

        producer = threading.Thread(target=produce)
        producer.start()
        store.close()
        producer.join()
        store = LmdbStore(tmp_path, 64 * MIB)
        report = store.check()
        found = store.get_many([record.header.key for record in records])
        store.close()
        assert report.problems == ()
        assert all(same(record, found[record.header.key.digest]) for record in records[: report.num_records])
        assert report.num_records == 300 or "closed" in str(outcome[0])


def test_a_closed_environment_refuses_to_read_and_to_write(tmp_path: Path) -> None:
    environment = Environment(tmp_path, None)
    environment.close()
    for use in (environment.read, environment.write):
        with pytest.raises(StoreClosedError, match="was closed; open it again"):
            use(lambda _: None)


def test_a_store_that_nobody_closed_is_written_at_exit(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from store_records import make_record\n"
        "from kamera_agent.store.lmdb_store import LmdbStore\n"
        "LmdbStore(sys.argv[1], 1 << 20).put_many([make_record('r')])\n"
    )
    code = os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent))
    assert code == 0
    store = LmdbStore(tmp_path, MIB)
    assert same(store.get_many([make_key("r")])[make_key("r").digest], make_record("r"))
    store.close()
