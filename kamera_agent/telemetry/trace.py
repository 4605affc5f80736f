"""A trace: one JSON line per answer."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kamera_agent.errors import InputError


class Trace:
    """Appends records to a file. Safe for use from several threads."""

    def __init__(self, path: str | os.PathLike[str], *, thumbnails: bool = False) -> None:
        """thumbnails: whether small pictures of what was seen go into the file, too; else it holds no pixels."""
        self.path = Path(path).expanduser()
        self.thumbnails = thumbnails
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

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
