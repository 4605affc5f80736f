"""A gate that many may pass, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Counts who is inside, so that what they use is not taken away under them. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Be inside with others."""
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
        """Wait until nobody is inside, and keep everybody out."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_inside == 0)
            yield
