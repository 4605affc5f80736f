"""A bar for work that takes long, in a terminal or a notebook."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterable
from typing import Any

from kamera_agent.closing import Closing

QUIET_S = 1.0

MEASURED = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
ENDLESS = "{desc}: {n:.0f} s in {elapsed}"


class Progress(Closing):
    """Shows how far a piece of work has come, from QUIET_S seconds after its beginning until it is closed.

    total: the amount of work, in any unit; 0.0 if unknown, and then the unit is a second.

    Nothing is written unless stderr is a terminal or belongs to a notebook. TQDM_DISABLE=1 in the environment turns
    every bar off.
    """

    def __init__(self, label: str, total: float) -> None:
        self._label = label
        self._total = total
        self._shown_from = time.monotonic() + QUIET_S
        self._done = 0.0
        # Made when it is first shown: tqdm starts a thread, which work that is quick should not pay for.
        self._bar: Any = None

    def advance(self) -> None:
        """Count one more unit as done."""
        self.reach(self._done + 1)

    def reach(self, done: float) -> None:
        """Set the amount that is done."""
        self._done = done
        if self._bar is None and time.monotonic() >= self._shown_from and _is_watched():
            self._bar = _make_bar(self._label, self._total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away. Idempotent."""
        if self._bar is not None:
            # A notebook keeps a bar, in red, that is closed before its end, and a clip ends before its stated length.
            self._bar.total = self._bar.n
            self._bar.close()


def with_progress(times: Iterable[float], duration_s: float, label: str) -> Generator[float, None, None]:
    """Yield the times unchanged, and show how far they have come.

    times: seconds into a clip. duration_s: length of the clip in seconds, 0.0 if unknown.
    """
    with Progress(label, duration_s) as progress:
        for time_s in times:
            progress.reach(time_s)
            yield time_s


def _is_watched() -> bool:
    """Whether stderr is a terminal or belongs to a notebook, whose kernel replaces it, and bars are not turned off."""
    # In a notebook, tqdm itself does not read its variable.
    if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        return False
    stderr = sys.stderr
    # None in a program without a console; and a program may put an object of its own here.
    if getattr(stderr, "closed", True):
        return False
    return type(stderr).__module__.startswith("ipykernel.") or (hasattr(stderr, "isatty") and stderr.isatty())


def _make_bar(label: str, total: float) -> Any:
    from tqdm.auto import tqdm

    return tqdm(desc=label, total=total or None, bar_format=MEASURED if total else ENDLESS, leave=False)
