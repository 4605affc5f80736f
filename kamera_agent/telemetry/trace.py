"""A trace: a file with one JSON line per answer, and one per drift that was measured later."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import asdict, replace
from errno import ENOSPC
from pathlib import Path

from pydantic import ValidationError

from kamera_agent.errors import InputError, SettingError
from kamera_agent.options import path_of, whole
from kamera_agent.telemetry.drift import Drift
from kamera_agent.telemetry.record import RECORDS, AnswerRecord, DriftRecord
from kamera_agent.trouble import Trouble

OWNER_ONLY = 0o600

logger = logging.getLogger("kamera_agent.telemetry")


class Trace:
    """Appends records to a file, which only its owner may read. Safe for use from several threads and processes.

    A record that cannot be written, to a full disk for instance, is lost. That is logged once.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, thumbnails: bool = False, drift_every: int | None = None
    ) -> None:
        """thumbnails: also write small pictures of the images and frames; otherwise the file holds no pixels.

        drift_every: measure the drift of every so many-th answer from a full prefill, which the answer waits for;
            None never does.
        Raises SettingError for a drift_every below 1, and for no path.
        """
        if drift_every is not None:
            drift_every = whole("drift_every", drift_every)
            if drift_every < 1:
                raise SettingError(f"drift_every is {drift_every}; use 1 (every answer) or more, or None.")
        self.path = Path(path_of("trace", path)).expanduser()
        self.thumbnails = thumbnails
        self._drift_every = drift_every
        self._num_answers = 0
        self._lock = threading.Lock()
        self._trouble = Trouble(
            logger,
            f"the trace {self.path} cannot be written; answers go on without records",
            f"the trace {self.path} is written again",
        )

    def drift_is_due(self) -> bool:
        """Count an answer that begins, and return whether its drift is to be measured."""
        with self._lock:
            self._num_answers += 1
            return self._drift_every is not None and self._num_answers % self._drift_every == 0

    def write(self, record: AnswerRecord) -> None:
        """Append one record."""
        self._append(record)

    def write_drift(self, record: AnswerRecord, drift: Drift) -> None:
        """Append the drift of an answer whose record is in the file."""
        self._append(DriftRecord(record.time, record.conversation, drift))

    def _append(self, record: AnswerRecord | DriftRecord) -> None:
        with self._trouble.contained():
            line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
            with self._lock:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _append(self.path, line.encode())


def _append(path: Path, line: bytes) -> None:
    """Add a line in one write, so that those of several processes do not mix. Raises OSError."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        # The writer of the last line may have died, or found the disk full.
        if end and os.pread(file, 1, end - 1) != b"\n":
            line = b"\n" + line
        if os.write(file, line) < len(line):
            raise OSError(ENOSPC, "the line was cut off")
    finally:
        os.close(file)


def read_trace(path: str | os.PathLike[str]) -> list[AnswerRecord]:
    """The records of a file, in order, each with its drift.

    A line that is cut off, because its process died or its disk was full, is left out. Raises InputError for a file
    that cannot be read or is not a trace.
    """
    file = Path(path_of("trace", path))
    try:
        lines = file.expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The trace {file} cannot be read: {error}.") from error
    records: list[AnswerRecord] = []
    drifts: dict[tuple[str, str], Drift] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = RECORDS.validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            if problem["type"] == "json_invalid" and "EOF while parsing" in problem["msg"] and line.startswith("{"):
                continue
            place = ".".join(map(str, problem["loc"]))
            raise InputError(
                f"Line {number} of {file} is not a record of a trace: {place} {problem['msg']}. Pass a "
                "file that a Trace wrote."
            ) from error
        if isinstance(record, DriftRecord):
            drifts[record.conversation, record.answer] = record.drift
        else:
            records.append(record)
    return [replace(record, drift=record.drift or drifts.get((record.conversation, record.time))) for record in records]
