"""A thread that does jobs in order."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from kamera_agent.forking import Computing
from kamera_agent.trouble import Trouble

logger = logging.getLogger("kamera_agent.library")


class Job:
    """An action for a worker.

    num_bytes: bytes of memory that the action holds until it is done.
    result: the number that the action returned; None until it is done, and where it failed.
    """

    def __init__(self, action: Callable[[], int], num_bytes: int = 0) -> None:
        self._action: Callable[[], int] | None = action
        self.num_bytes = num_bytes
        self.result: int | None = None
        self._unfinished = threading.Lock()
        self._unfinished.acquire()

    @property
    def done(self) -> bool:
        """Whether it is over, also where it failed."""
        return not self._unfinished.locked()

    def do(self) -> None:
        """Do it, unless it is done. Raises what the action raises."""
        try:
            if self._action:
                self.result = self._action()
        finally:
            # The memory goes with the action.
            self._action = None
            # A worker that was interrupted after a job does it again.
            with suppress(RuntimeError):
                self._unfinished.release()

    def wait(self) -> None:
        """Return once it is over."""
        # Nor may the one who waits release it twice, if the job is done again at this moment.
        with suppress(RuntimeError), self._unfinished:
            pass


class Worker(Computing):
    """Does jobs one by one, in a thread that lives while there are jobs.

    An idle worker therefore keeps nothing in memory, a forked child gets a thread of its own, and a program ends after
    the last job. A forked child forgets the jobs of its parent.

    num_failed: jobs that failed with an error, the first of which was logged.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.num_failed = 0
        self._trouble = Trouble(
            logger, "Chunks cannot be remembered and will be computed again", "Chunks are remembered again"
        )
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()
        self.busy = threading.Lock()
        # The first is being done. No other field counts them, so an interrupt leaves no contradiction.
        self._jobs: deque[Job] = deque()
        self._thread: threading.Thread | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes that the unfinished jobs hold."""
        return sum(job.num_bytes for job in self._jobs.copy())

    def has_room(self, num_bytes: int, bound: int) -> bool:
        """Whether a job of so many bytes may wait, with a bound on the bytes of all that wait."""
        # One job may always wait, however large: otherwise a small bound would keep every job out.
        waiting_bytes = self.num_bytes
        return waiting_bytes == 0 or waiting_bytes + num_bytes <= bound

    def submit(self, job: Job) -> None:
        """Have a job done after all earlier ones. Returns at once."""
        with self._lock:
            self._jobs.append(job)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    # While a program ends, no thread can be started. drain() does the jobs.
                    logger.debug("The thread of %s does not start: %s", self._name, error)
                    self._thread = None

    def drain(self) -> None:
        """Return once all jobs submitted so far are done."""
        last = Job(_nothing)
        self.submit(last)
        with self._lock:
            self._thread = self._thread or threading.current_thread()
        self._run()
        last.wait()

    def _run(self) -> None:
        while job := self._next():
            try:
                with self.busy:
                    job.do()
            except Exception as error:  # noqa: BLE001 - the next job may do
                self.num_failed += 1
                self._trouble.failed(error)
            else:
                self._trouble.worked()
            with self._lock:
                if self._jobs and self._jobs[0] is job:
                    self._jobs.popleft()

    def _next(self) -> Job | None:
        with self._lock:
            # After an interrupted submit(), there may be another thread, which then goes on instead of this one.
            if self._thread is not threading.current_thread():
                return None
            if not self._jobs:
                self._thread = None
                return None
            return self._jobs[0]


def _nothing() -> int:
    return 0
