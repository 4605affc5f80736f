"""Who is answered now, and who waits."""

from __future__ import annotations

from asyncio import Semaphore
from collections.abc import Iterator
from contextlib import contextmanager

from kamera_agent.serve.errors import Refused

RETRY_S = 1


class Queue:
    """Answers a number of requests side by side; others wait, first come, first served. Belongs to one event loop.

    turn: to be held while a request is answered.
    """

    def __init__(self, num_answered: int, num_waiting: int) -> None:
        """num_answered: requests that are answered at once. num_waiting: others that may be in the server."""
        self.turn = Semaphore(num_answered)
        self._most, self._num_inside = num_answered + num_waiting, 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Have a place in the server. Raises Refused where all are taken."""
        if self._num_inside >= self._most:
            message = f"{self._num_inside} requests are being answered or wait; try again later."
            raise Refused(429, message, "rate_limit_exceeded", headers={"retry-after": str(RETRY_S)})
        self._num_inside += 1
        try:
            yield
        finally:
            self._num_inside -= 1
