"""A trace: one JSON line per answer."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kamera_agent.errors import InputError, SettingError


class Trace:
    """Appends records to a file. Safe for use from several threads."""

    def __init__(
        self, path: str | os.PathLike[str], *, thumbnails: bool = False, drift_every: int | None = None
    ) -> None:
        """thumbnails: whether small pictures of what was seen go into the file, too; else it holds no pixels.

        drift_every: measure how far every so many-th answer drifts from a full prefill, which it waits for; None never.
        Raises SettingError for a drift_every below 1.
        """
        if drift_every is not None and drift_every < 1:
            raise SettingError(f"drift_every is {drift_every}; use 1 (every answer) or more, or None.")
        self.path = Path(path).expanduser()
        self.thumbnails = thumbnails
        self._drift_every = drift_every
        self._num_answers = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

    def drift_is_due(self) -> bool:
        """Count an answer that begins; returns whether its drift is to be measured."""
        with self._lock:
            self._num_answers += 1
            return self._drift_every is not None and self._num_answers % self._drift_every == 0

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        line = json.dumps(record, separators=(",", ":")) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_trace(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a file in order.

    A last line that was cut off, as by a process that died, is left out. Raises InputError for a file that cannot be
    read or is no trace.
    """
    try:
        lines = Path(path).expanduser().read_text("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The trace {os.fspath(path)} cannot be read: {error}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise InputError(f"Line {number} of {os.fspath(path)} is no JSON: {error}.") from error
        if not isinstance(record, dict) or "rows" not in record:
            raise InputError(f"Line {number} of {os.fspath(path)} is no record of a trace; it has no rows.")
        records.append(record)
    return records
