"""Forks beside threads that use a store: the child opens the folder anew, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import pytest
from store_records import KIB

from benchmarks.torture.records import genuine, make_key, versioned_record
from kamera_agent import forking
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.lmdb_store import LmdbStore

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

CAP_BYTES = 300 * KIB
SECONDS = 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        store.put_many([versioned_record("r", 0)])
        store.flush()
        yield store


def in_child(action: Callable[[], object]) -> int:
    """The exit code of a forked child: 0 if the action returns, negative if it takes too long."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(SECONDS)
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def use(folder: Path) -> None:
    with LmdbStore(folder) as store:
        store.put_many([versioned_record("child", 1)])
        store.flush()
        found = store.get_many([make_key("r"), make_key("child")])
        assert genuine("r", found[make_key("r").digest])
        assert genuine("child", found[make_key("child").digest])


@pytest.mark.parametrize("num_threads", [1, 3])
def test_forks_while_threads_put_and_get(tmp_path: Path, store: LmdbStore, num_threads: int) -> None:
    ended = threading.Event()

    def work() -> None:
        version = 0
        while not ended.is_set():
            version += 1
            store.put_many([versioned_record("r", version)])
            store.get_many([make_key("r")])

    threads = [threading.Thread(target=work) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    codes = [in_child(lambda: use(tmp_path)) for _ in range(6)]
    ended.set()
    for thread in threads:
        thread.join()
    assert codes == [0] * 6
    assert store.check().problems == ()


def inside_a_read(store: LmdbStore, seconds: float) -> threading.Thread:
    """A thread that reads the store for so long."""
    inside = threading.Event()

    def read(_: object) -> None:
        inside.set()
        sleep(seconds)

    thread = threading.Thread(target=lambda: store._database.read(read))
    thread.start()
    assert inside.wait(SECONDS)
    return thread


def test_a_fork_waits_for_a_read(tmp_path: Path, store: LmdbStore) -> None:
    thread = inside_a_read(store, 0.3)
    assert in_child(lambda: use(tmp_path)) == 0
    thread.join()
    assert genuine("r", store.get_many([make_key("r")])[make_key("r").digest])


def test_a_child_that_cannot_take_over_is_told_so(
    tmp_path: Path, store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "PATIENCE_S", 0.1)
    thread = inside_a_read(store, 1.0)

    def refused() -> None:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="was in use when process"):
                LmdbStore(tmp_path)

    assert in_child(refused) == 0
    # A child of that child is in the same place.
    assert in_child(lambda: [refused(), in_child(refused) == 0 or os._exit(3)]) == 0
    thread.join()
    assert in_child(lambda: use(tmp_path)) == 0
