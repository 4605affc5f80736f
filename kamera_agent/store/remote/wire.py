"""The way to a medium that may be slow or gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
        if seconds <= 0 or monotonic() < self._rests_until:
            return None
        try:
            result = self._wait(call, seconds)
        except Exception as error:  # noqa: BLE001 - whatever a client of a server raises, the answer goes on
            self._rests_until = monotonic() + self._rests * REST_S
            self._trouble.failed(_explained(error) if isinstance(error, self._expected) else error)
            return None
        self._trouble.worked()
        return result

    def _wait(self, call: Callable[[], T], seconds: float) -> T:
        if len(self._calls) >= self._max_calls:
            raise StoreUnavailableError(f"{len(self._calls)} earlier requests have not come back")
        returned: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()
        threading.Thread(target=partial(self._run, call, returned), name="kamera-shared", daemon=True).start()
        try:
            result, error = returned.get(timeout=seconds)
        except Empty:
            raise StoreUnavailableError(f"it did not answer within {1000 * seconds:.0f} ms") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # without an error, there is a result

    def _run(self, call: Callable[[], T], returned: SimpleQueue[tuple[T | None, Exception | None]]) -> None:
        self._calls.add(returned)
        try:
            returned.put((call(), None))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            returned.put((None, error))
        except BaseException as error:  # noqa: BLE001 - what a client written in Rust raises when it panics
            returned.put((None, StoreUnavailableError(f"{type(error).__name__}: {error}")))
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
