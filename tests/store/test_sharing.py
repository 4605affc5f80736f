"""Opening and closing folders: no folder waits for another, and a failed opening leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from store_records import KIB, make_record

from benchmarks.torture.records import same
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.environment import Environment
from kamera_agent.store.lmdb_store import LmdbStore

CAP_BYTES = 300 * KIB
# Far more than opening a folder takes.
SECONDS = 20
RECORD = make_record("r")


class Slow:
    """Holds up a method of Environment for one folder until may_go is set. entered: set by the first call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, folder: Path) -> None:
        self.entered, self.may_go = threading.Event(), threading.Event()
        original: Callable[..., object] = getattr(Environment, method)

        def held_up(environment: Environment, *arguments: object) -> object:
            path = arguments[0] if method == "__init__" else environment.path
            if path == folder:
                self.entered.set()
                self.may_go.wait()
            return original(environment, *arguments)

        monkeypatch.setattr(Environment, method, held_up)


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread) -> bool:
    thread.join(SECONDS)
    return not thread.is_alive()


def close_slowly(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[Slow, threading.Thread]:
    """Close a store of one record in a thread, which is held up while the queue drains."""
    drain = Slow(monkeypatch, "write", folder)
    store = LmdbStore(folder, CAP_BYTES)
    store.put_many([RECORD])
    closing = in_thread(store.close)
    assert drain.entered.wait(SECONDS)
    return drain, closing


def test_a_slow_drain_of_one_folder_does_not_block_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drain, closing = close_slowly(monkeypatch, tmp_path / "slow")
    other = in_thread(lambda: LmdbStore(tmp_path / "other", CAP_BYTES).close())
    free = ends(other)
    drain.may_go.set()
    assert free
    assert ends(closing)


def test_a_slow_opening_of_one_folder_does_not_block_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = Slow(monkeypatch, "__init__", tmp_path / "slow")
    slow = in_thread(lambda: LmdbStore(tmp_path / "slow", CAP_BYTES).close())
    assert opening.entered.wait(SECONDS)
    other = in_thread(lambda: LmdbStore(tmp_path / "other", CAP_BYTES).close())
    free = ends(other)
    opening.may_go.set()
    assert free
    assert ends(slow)


def test_a_folder_that_is_being_closed_is_opened_again_once_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, closing = close_slowly(monkeypatch, tmp_path)
    served: list[bool] = []

    def reopen() -> None:
        with LmdbStore(tmp_path, CAP_BYTES) as store:
            served.append(same(store.get_many([RECORD.header.key])[RECORD.header.key.digest], RECORD))

    reopening = in_thread(reopen)
    reopening.join(0.2)
    assert served == []
    drain.may_go.set()
    assert ends(reopening)
    assert ends(closing)
    assert served == [True]


def test_many_threads_open_and_close_one_folder(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(20):
                with LmdbStore(tmp_path, CAP_BYTES) as store:
                    store.put_many([RECORD])
        except Exception as error:  # noqa: BLE001 - whatever it was, the main thread shall see it
            errors.append(error)

    threads = [in_thread(work) for _ in range(6)]
    assert all(ends(thread) for thread in threads)
    assert errors == []


def test_nothing_is_left_of_an_opening_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            LmdbStore(tmp_path, CAP_BYTES)
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailableError):
        LmdbStore(tmp_path / "file", CAP_BYTES)
    # Another cap is not a conflict, because the folder is not open.
    LmdbStore(tmp_path, 2 * CAP_BYTES).close()


def test_an_interrupted_close_is_finished_by_the_next_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    store = LmdbStore(tmp_path, CAP_BYTES)
    store.put_many([RECORD])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.close()
    with LmdbStore(tmp_path, 2 * CAP_BYTES) as again:
        assert same(again.get_many([RECORD.header.key])[RECORD.header.key.digest], RECORD)


# Later Pythons warn of a fork beside threads, which this test needs.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_during_a_drain_opens_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drain, closing = close_slowly(monkeypatch, tmp_path)
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(SECONDS)
            drain.may_go.set()
            with LmdbStore(tmp_path, CAP_BYTES) as store:
                store.put_many([make_record("from the child")])
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    drain.may_go.set()
    assert ends(closing)
    assert code == 0
    with LmdbStore(tmp_path, CAP_BYTES) as store:
        assert store.check().num_records == 2
