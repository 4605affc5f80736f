"""A lock that many may share, or one may hold alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar
from weakref import WeakSet

from kamera_agent.forking import Pausing

T = TypeVar("T")


class Gate(Pausing):
    """Keeps whoever closes something waiting while other threads use it, and forks as well. Not reentrant.

    Each thread has a lock of its own, and whoever wants to be alone takes them all. A counter of the threads inside
    would be wrong for good if Ctrl-C came between its change and the block that takes the change back; a with statement
    on a lock leaves no such gap.

    is_whole: whether nobody was inside at any fork that made this process.
    """

    depth = 2

    def __init__(self) -> None:
        self.is_whole = self._is_paused = True
        self._taken: list[threading.Lock] = []
        super().__init__()

    def renew(self) -> None:
        self.is_whole = self.is_whole and self._is_paused
        self._is_paused = False
        self._entering = threading.Lock()
        self._own = threading.local()
        self._locks: WeakSet[threading.Lock] = WeakSet()

    def pause(self, timeout: float) -> bool:
        end, taken = monotonic() + timeout, list[threading.Lock]()
        if self._entering.acquire(timeout=timeout):
            taken.append(self._entering)
            for lock in list(self._locks):
                if not lock.acquire(timeout=max(0.0, end - monotonic())):
                    break
                taken.append(lock)
            else:
                self._taken, self._is_paused = taken, True
                return True
        for lock in taken:
            lock.release()
        return False

    def resume(self) -> None:
        self._is_paused = False
        while self._taken:
            self._taken.pop().release()

    def shared(self) -> threading.Lock:
        """The lock to hold in this thread while inside together with others."""
        lock: threading.Lock | None = getattr(self._own, "lock", None)
        if lock is None:
            with self._entering:
                lock = self._own.lock = threading.Lock()
                self._locks.add(lock)
        return lock

    def alone(self, action: Callable[[], T]) -> T:
        """Wait until nobody is inside, then run an action while everybody is kept out."""
        with self._entering:
            return _holding(list(self._locks), action)


def _holding(locks: Sequence[threading.Lock], action: Callable[[], T]) -> T:
    if not locks:
        return action()
    with locks[0]:
        return _holding(locks[1:], action)
