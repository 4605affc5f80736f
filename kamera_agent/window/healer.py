"""A thread that heals windows while no answer is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from time import monotonic, perf_counter, sleep
from typing import Protocol
from weakref import ref

from kamera_agent.forking import Computing
from kamera_agent.runtime.engine import POLL_S, Engine

logger = logging.getLogger("kamera_agent.healer")

# How long the thread waits for the end of the answers. The end of an answer wakes it again.
PATIENCE_S = 1.0


class Healable(Protocol):
    """What a healer asks of a window."""

    def heal(self, gives_way: Callable[[], bool]) -> int | None: ...


class Healer(Computing):
    """Heals windows slice by slice, in a thread that lives while there is something to heal.

    It works only while no answer is being computed, and a slice that has begun ends early where one is wanted. It knows
    windows by weak references. A program ends without waiting for it, and a forked child has nothing to heal.

    num_tokens, seconds: computed so far, and the time it took. num_failed: slices that failed with an error; the first
    is logged.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._closed = False
        self.num_tokens = 0
        self.seconds = 0.0
        self.num_failed = 0
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()
        # Held for one slice at a time.
        self.busy = threading.Lock()
        # The last one woken comes last.
        self._waiting: dict[ref[Healable], None] = {}
        self._is_woken = False
        self._thread: threading.Thread | None = None

    def wake(self, window: Healable) -> None:
        """Have a window healed soon. Returns at once."""
        with self._lock:
            self._waiting.pop(ref(window), None)
            self._waiting[ref(window)] = None
            self._is_woken = True
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="kamera-heal")
                try:
                    self._thread.start()
                except RuntimeError as error:
                    # While a program ends, no thread can be started.
                    logger.debug("The thread that heals does not start: %s", error)
                    self._thread = None

    def settle(self, windows: Iterable[Healable]) -> bool:
        """Heal windows in this thread. Returns whether all are healed; those that answer are left out.

        Raises what a slice raises.
        """
        results = [self._heal(window) for window in windows]
        return all(results)

    def close(self) -> None:
        """Heal no more. A slice that runs ends early. Idempotent."""
        self._closed = True
        with self.busy:
            thread = self._thread
        if thread and thread.is_alive():
            thread.join()

    def _heal(self, window: Healable) -> bool:
        """Heal a window slice by slice; returns whether it is healed, or has given way to an answer."""
        while tokens := self._slice(window):
            pass
        return tokens == 0

    def _slice(self, window: Healable) -> int | None:
        with self.busy:
            if self._gives_way():
                return None
            start = perf_counter()
            try:
                tokens = window.heal(self._gives_way)
            finally:
                self.seconds += perf_counter() - start
            self.num_tokens += tokens or 0
            return tokens

    def _gives_way(self) -> bool:
        return self._is_over() or self._engine.is_answering

    def _is_over(self) -> bool:
        return self._closed or not threading.main_thread().is_alive()

    def _run(self) -> None:
        while waiting := self._next():
            # The only strong reference, and not for longer than this.
            if (window := waiting()) and not self._try(window):
                with self._lock:
                    self._waiting.setdefault(waiting)
            del window

    def _try(self, window: Healable) -> bool:
        try:
            return self._heal(window)
        except Exception:
            self.num_failed += 1
            if self.num_failed == 1:
                logger.exception("A window could not be healed; its next answer is computed as if nothing had been.")
            return True

    def _next(self) -> ref[Healable] | None:
        end = monotonic() + PATIENCE_S
        while self._engine.is_answering and not self._is_over() and monotonic() < end:
            sleep(POLL_S)
        with self._lock:
            # After an interrupted wake(), there may be another thread, which then goes on instead of this one.
            if self._thread is not threading.current_thread():
                return None
            if self._waiting and not self._is_over() and (self._is_woken or not self._engine.is_answering):
                self._is_woken = False
                return self._waiting.popitem()[0]
            self._thread = None
            return None
