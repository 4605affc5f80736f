"""A lock that many may share, or one may hold alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Gate:
    """Keeps whoever closes something waiting while other threads use it. Not reentrant.

    Each thread has a lock of its own, and whoever wants to be alone takes them all. A counter of the threads inside
    would be wrong for good if Ctrl-C came between its change and the block that takes the change back; a with statement
    on a lock leaves no such gap.
    """

    def __init__(self) -> None:
        self._entering = threading.Lock()
        self._own = threading.local()
        self._locks: WeakSet[threading.Lock] = WeakSet()

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
