"""A trace: a file with one JSON line per answer, and one per drift that was measured later."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import ValidationError

from kamera_agent.errors import InputError, SettingError
from kamera_agent.options import path_of, whole
from kamera_agent.telemetry.drift import Drift
from kamera_agent.telemetry.record import RECORDS, AnswerRecord, DriftRecord


class Trace:
    """Appends records to a file. Safe for use from several threads."""

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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()

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
        line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_trace(path: str | os.PathLike[str]) -> list[AnswerRecord]:
    """The records of a file, in order, each with its drift.

    A last line that is cut off, because its process died, is left out. Raises InputError for a file that cannot be
    read or is not a trace.
    """
    file = Path(path_of("trace", path))
    try:
        lines = file.expanduser().read_text("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The trace {file} cannot be read: {error}.") from error
    records: list[AnswerRecord] = []
    drifts: dict[tuple[str, str], Drift] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = RECORDS.validate_json(line)
        except ValidationError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            problem = error.errors()[0]
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
