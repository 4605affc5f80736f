"""What goes wrong again and again, and is said once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from kamera_agent.errors import KameraError

# A trouble that is over and begins again within this time is not said again.
QUIET_S = 60.0


class Trouble:
    """A trouble of one kind: logged when it begins and when it is over, and not in between.

    logger: where it is logged. begins, over: the lines; the reason is added to the first.
    """

    def __init__(self, logger: logging.Logger, begins: str, over: str) -> None:
        self._logger, self._begins, self._over = logger, begins, over
        self._is_on = self._is_said = False
        self._said_at = float("-inf")

    @contextmanager
    def contained(self) -> Iterator[None]:
        """Run the body of a with statement. An exception is logged, and goes no further."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, what comes after the body matters more
            self.failed(error)
        else:
            self.worked()

    def failed(self, error: Exception) -> None:
        """Log the error if the trouble begins with it."""
        was_on, self._is_on = self._is_on, True
        now = monotonic()
        if was_on or now - self._said_at < QUIET_S:
            return
        self._said_at, self._is_said = now, True
        # An error that is not explained by its own text is a fault of ours, or of a library.
        is_explained = isinstance(error, (KameraError, OSError))
        self._logger.warning(
            "%s: %s: %s", self._begins, type(error).__name__, error, exc_info=None if is_explained else error
        )

    def worked(self) -> None:
        """Log that the trouble is over, if there was one."""
        self._is_on = False
        if self._is_said:
            self._is_said = False
            self._logger.info(self._over)
