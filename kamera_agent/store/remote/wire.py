"""The way to a medium that may be slow or gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeVar

from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.remote.medium import first_line
from kamera_agent.trouble import Trouble

# How long a medium that failed is left alone.
REST_S = 5.0
# Calls that have not come back, though nobody waits for them any longer: of a network folder that hangs, for instance.
MAX_LOST = 16

T = TypeVar("T")
# What a call has yielded, each in a tuple; then None, or the error that it ended with.
Returned = SimpleQueue[tuple[T] | Exception | None]


class Wire:
    """Calls a medium for at most so long, and after a failure not at all for a while.

    A call runs in a thread of its own. So no exception, Ctrl-C among them, leaves a conversation with a server half
    held: who waits stops waiting, and the call comes to its end by itself.

    trouble: told of failures, and of the end of them. expected: the errors that say all there is to say of a failure.
    rests: how many times REST_S the medium is left alone. max_calls: that are made at once.
    """

    def __init__(
        self, trouble: Trouble, expected: tuple[type[Exception], ...], rests: int = 1, max_calls: int = MAX_LOST
    ) -> None:
        self._trouble, self._expected, self._rests, self._max_calls = trouble, expected, rests, max_calls
        self._rests_until = float("-inf")
        self._calls: set[object] = set()

    def ask(self, call: Callable[[], T], seconds: float) -> T | None:
        """The result of a call; None where it failed, took longer than so many seconds, or was not made."""
        results = [*self.stream(lambda: (call() for _ in range(1)), seconds)]
        return results[0] if results else None

    def stream(self, call: Callable[[], Iterator[T]], seconds: float) -> Iterator[T]:
        """What a call yields, as it comes; the call goes on while the caller works on that.

        Ends early where the call fails or takes longer than so many seconds; what has come by then is still given.
        """
        if seconds <= 0 or monotonic() < self._rests_until:
            return
        try:
            yield from self._wait(call, seconds)
        except Exception as error:  # noqa: BLE001 - whatever a client of a server raises, the answer goes on
            self._rests_until = monotonic() + self._rests * REST_S
            self._trouble.failed(_explained(error) if isinstance(error, self._expected) else error)
        else:
            self._trouble.worked()

    def _wait(self, call: Callable[[], Iterator[T]], seconds: float) -> Iterator[T]:
        if len(self._calls) >= self._max_calls:
            raise StoreUnavailableError(f"{len(self._calls)} earlier requests have not come back")
        returned: Returned[T] = SimpleQueue()
        threading.Thread(target=partial(self._run, call, returned), name="kamera-shared", daemon=True).start()
        end = monotonic() + seconds
        while True:
            try:
                item = returned.get(timeout=max(0.0, end - monotonic()))
            except Empty:
                raise StoreUnavailableError(f"it did not answer within {1000 * seconds:.0f} ms") from None
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item[0]

    def _run(self, call: Callable[[], Iterator[T]], returned: Returned[T]) -> None:
        self._calls.add(returned)
        try:
            for result in call():
                returned.put((result,))
            returned.put(None)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            returned.put(error)
        except BaseException as error:  # noqa: BLE001 - what a client written in Rust raises when it panics
            returned.put(StoreUnavailableError(f"{type(error).__name__}: {error}"))
        finally:
            self._calls.discard(returned)


def _explained(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"{type(error).__name__}: {first_line(error)}")


class Allowance(threading.local):
    """How long the reads of a turn may still take, in each thread.

    seconds: of a whole turn; so much has also each read that belongs to none.
    """

    # A turn reads the store soon after it began.
    TURN_S = 10.0

    def __init__(self, seconds: float) -> None:
        self.seconds = self._left = seconds
        self._began = float("-inf")

    def begin(self) -> None:
        """A turn begins in this thread."""
        self._left, self._began = self.seconds, monotonic()

    def spend(self, read: Callable[[float], T]) -> T:
        """The result of a read, which is told how many seconds it may take."""
        start = monotonic()
        if start - self._began > self.TURN_S:
            return read(self.seconds)
        try:
            return read(self._left)
        finally:
            self._left = max(0.0, self._left - (monotonic() - start))
