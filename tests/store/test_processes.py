"""Several stores, threads and processes over one folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import lmdb
import pytest
from store_records import KIB, make_record

from benchmarks.torture.records import make_key, same
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store import environment
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

CAP_BYTES = 300 * KIB


def put_megabytes(folder: Path) -> None:
    store = LmdbStore(folder, 64 << 20)
    store.put_many(make_record(f"theirs{i}", [(256, 1024)], num_layers=1) for i in range(8))
    store.close()


def test_a_file_that_another_process_grew_past_our_map_is_still_served(
    tmp_path: Path, forkserver: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "map_bytes", lambda cap_bytes: 1 << 20)
    store, ours = LmdbStore(tmp_path, 64 << 20), make_record("ours")
    store.put_many([ours])
    store.flush()
    child = forkserver.Process(target=put_megabytes, args=(tmp_path,))
    child.start()
    child.join()
    theirs = make_record("theirs7", [(256, 1024)], num_layers=1)
    found = store.get_many([ours.header.key, theirs.header.key])
    assert same(found[ours.header.key.digest], ours)
    assert same(found[theirs.header.key.digest], theirs)
    store.put_many([make_record("later")])
    store.flush()
    assert (store.stats().num_records, store.stats().failed_writes) == (10, 0)
    store.close()


def put_megabytes_when_told(folder: Path, told: Connection) -> None:
    with LmdbStore(folder) as store:
        told.send("open")
        told.recv()
        store.put_many(make_record(f"theirs{i}", [(256, 1024)], num_layers=1) for i in range(8))
        store.flush()
        told.send("written")
        told.recv()


def test_a_file_that_another_process_grows_meanwhile_is_opened(
    tmp_path: Path, forkserver: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB maps what a large file has when it is opened, and its next transaction finds more."""
    with LmdbStore(tmp_path, 64 << 20) as store:
        store.put_many([make_record("ours", [(1024, 1024)], num_layers=4)])
    told, theirs = forkserver.Pipe()
    child = forkserver.Process(target=put_megabytes_when_told, args=(tmp_path, theirs))
    child.start()
    assert told.recv() == "open"
    open_it = lmdb.open

    def open_and_tell(*args: Any, **options: Any) -> lmdb.Environment:
        opened = open_it(*args, **options)
        told.send("go on")
        assert told.recv() == "written"
        return opened

    monkeypatch.setattr(lmdb, "open", open_and_tell)
    with LmdbStore(tmp_path) as store:
        told.send("go on")
        child.join()
        assert store.check().num_records == 9


def die_inside_a_read(folder: Path) -> None:
    store = LmdbStore(folder, CAP_BYTES)
    store._database.read(lambda txn: os.kill(os.getpid(), signal.SIGKILL))


def test_a_process_that_is_killed_while_it_reads_lets_the_file_be_used_again(
    tmp_path: Path, forkserver: ForkServerContext
) -> None:
    """1. One of two processes is killed inside a read. 2. The other replaces 12 times what the store holds."""
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many([make_record("r")])
        store.flush()
        child = forkserver.Process(target=die_inside_a_read, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        sizes = []
        for version in range(50):
            store.put_many([make_record(f"r{version % 4}", [(20 * KIB,)], num_layers=1, seed=version)])
            store.flush()
            sizes.append((tmp_path / DATABASE).stat().st_size)
        assert sizes[-1] == sizes[20]
        assert store.stats().failed_writes == 0


def test_two_stores_of_one_process_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    first, second = LmdbStore(tmp_path / "folder", CAP_BYTES), LmdbStore(tmp_path / "link")
    record = make_record("r")
    first.put_many([record])
    assert same(second.get_many([record.header.key])[record.header.key.digest], record)
    assert second.stats().cap_bytes == CAP_BYTES
    assert (first.stats().hits, second.stats().hits) == (0, 1)
    first.put_many([make_record("too large", [(CAP_BYTES,)])])
    first.flush()
    assert first.medium is second.medium
    for stats in (first.stats(), second.stats()):
        assert (stats.num_records, stats.failed_writes, stats.bytes_written) == (1, 1, record.header.num_bytes)
    first.close()
    second.put_many([make_record("after the first was closed")])
    assert second.check().num_records == 2
    second.close()


def put_under_another_cap(folder: Path, cap_bytes: int) -> None:
    with LmdbStore(folder, cap_bytes) as store:
        store.put_many([make_record("theirs")])


@pytest.mark.parametrize("cap_bytes", [1, 5 * KIB, 1 << 30])
def test_a_process_with_another_cap_evicts_nothing(
    tmp_path: Path, forkserver: ForkServerContext, cap_bytes: int
) -> None:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many(make_record(f"r{i}") for i in range(20))
        store.flush()
        child = forkserver.Process(target=put_under_another_cap, args=(tmp_path, cap_bytes))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert (store.stats().num_records, store.stats().cap_bytes) == (21, CAP_BYTES)


def raise_the_cap(folder: Path) -> None:
    with LmdbStore(folder) as store:
        store.resize(8 * CAP_BYTES)


def test_a_cap_that_another_process_raised_holds_at_once(tmp_path: Path, forkserver: ForkServerContext) -> None:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        child = forkserver.Process(target=raise_the_cap, args=(tmp_path,))
        child.start()
        child.join()
        record = make_record("larger than the first cap", [(2 * CAP_BYTES // 4,)], num_layers=1)
        store.put_many([record])
        store.flush()
        assert (store.stats().num_records, store.stats().cap_bytes) == (1, 8 * CAP_BYTES)


def exit_code_of_fork(body: Callable[[], bool]) -> int:
    """Run body in a forked child: 0 for True, 1 for False or an exception."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if body() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def refuses(store: LmdbStore) -> bool:
    with pytest.raises(StoreUnavailableError, match="open the store again"):
        store.get_many([make_key("r")])
    store.close()
    return True


def serves(folder: Path) -> bool:
    store = LmdbStore(folder, CAP_BYTES)
    store.put_many([make_record("from the child")])
    found = store.get_many([make_key("r")])
    store.close()
    return same(found[make_key("r").digest], make_record("r"))


# Later Pythons warn of a fork beside threads, which this test needs.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork_the_child_opens_its_own(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, CAP_BYTES)
    store.put_many([make_record("r")])
    store.flush()
    assert exit_code_of_fork(partial(refuses, store)) == 0
    assert exit_code_of_fork(partial(serves, tmp_path)) == 0
    found = store.get_many([make_key("r"), make_key("from the child")])
    assert len(found) == 2
    assert store.check().problems == ()
    store.close()
