"""A lock that many may share, or one may hold alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Counts the threads inside, so that nothing is closed while one of them uses it. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside together with others."""
        with self._changed:
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody is inside, then keep everybody out."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_inside == 0)
            # The lock is held throughout, and shared() needs it to enter.
            yield
