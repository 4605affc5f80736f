"""A progress bar for clips that take long to read."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable

from rich.console import Console
from rich.progress import Progress

QUIET_S = 1.0


def with_progress(times: Iterable[float], duration_s: float, label: str) -> Generator[float, None, None]:
    """Yield the times unchanged; after QUIET_S seconds, show on stderr how far they have come.

    times: seconds into the clip. duration_s: length of the clip in seconds, 0.0 if unknown.
    Nothing is written when stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield from times
        return
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=duration_s or None)
    shown_from = time.monotonic() + QUIET_S
    try:
        for time_s in times:
            if not bar.live.is_started and time.monotonic() >= shown_from:
                bar.start()
            bar.update(task, completed=time_s)
            yield time_s
    finally:
        bar.stop()
