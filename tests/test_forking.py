"""Forks beside threads that compute."""

import os
import threading
from collections.abc import Callable
from time import sleep

import pytest

from kamera_agent import forking
from kamera_agent.forking import Computing

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


class Worker(Computing):
    """Computes for a while in a thread. result: empty while it does."""

    def renew(self) -> None:
        self.busy = threading.Lock()

    def compute(self) -> None:
        with self.busy:
            self.result = ""
            self.begun.set()
            sleep(0.3)
            self.result = "done"

    def start(self) -> threading.Thread:
        self.begun = threading.Event()
        thread = threading.Thread(target=self.compute)
        thread.start()
        assert self.begun.wait(20)
        return thread


class Innermost(Worker):
    depth = 1


def in_child(holds: Callable[[], bool]) -> bool:
    """Whether a condition holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if holds() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_waits_until_nothing_computes() -> None:
    workers = Worker(), Innermost()
    threads = [worker.start() for worker in workers]
    assert in_child(lambda: all(worker.result == "done" and not worker.busy.locked() for worker in workers))
    for thread in threads:
        thread.join()
    assert not any(worker.busy.locked() for worker in workers)


def test_a_fork_waits_for_a_thread_that_wants_the_innermost_lock() -> None:
    """It takes that lock last, so the thread ends."""
    outer, inner = Worker(), Innermost()
    begun = threading.Event()

    def compute() -> None:
        with outer.busy:
            begun.set()
            sleep(0.3)
            with inner.busy:
                inner.result = "done"

    inner.result = ""
    thread = threading.Thread(target=compute)
    thread.start()
    assert begun.wait(20)
    assert in_child(lambda: inner.result == "done")
    thread.join()


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of the parent stays taken by its holder; the child has another one."""
    monkeypatch.setattr(forking, "PATIENCE_S", 0.1)
    worker = Worker()
    with worker.busy:
        assert in_child(lambda: not worker.busy.locked())
        assert worker.busy.locked()
    assert not worker.busy.locked()
