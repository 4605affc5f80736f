"""Who is answered now, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kamera_agent.serve.errors import Refused

RETRY_S = 1


@dataclass(slots=True)
class Place:
    """The place of a request in the server. has_turn: the work on an answer has had a turn, and gives back both."""

    has_turn: bool = False


class Queue:
    """Answers a number of requests side by side; others wait, first come, first served. Belongs to one event loop."""

    def __init__(self, num_answered: int, num_waiting: int, wait_s: float) -> None:
        """num_answered: requests that are answered at once. num_waiting: others that may be in the server.

        wait_s: how long they may wait for their turn.
        """
        self._turns = asyncio.Semaphore(num_answered)
        self._most, self._num_inside, self._wait_s = num_answered + num_waiting, 0, wait_s

    async def turn(self, place: Place) -> None:
        """Wait for the turn of a place, which end() gives back. Raises Refused where none comes in time."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turns.acquire()
        except TimeoutError:
            raise _busy(f"The request has waited for {self._wait_s:g} s") from None
        place.has_turn = True

    def end(self) -> None:
        """Give a turn and its place back: the work has ended, whether or not the client has read the answer."""
        self._turns.release()
        self._num_inside -= 1

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Have a place in the server until the context ends, or until end() if there was a turn.

        Raises Refused where all are taken.
        """
        if self._num_inside >= self._most:
            raise _busy(f"{self._num_inside} requests are being answered or wait")
        self._num_inside += 1
        place = Place()
        try:
            yield place
        finally:
            if not place.has_turn:
                self._num_inside -= 1


def _busy(reason: str) -> Refused:
    return Refused(429, f"{reason}; try again later.", "rate_limit_exceeded", headers={"retry-after": str(RETRY_S)})
