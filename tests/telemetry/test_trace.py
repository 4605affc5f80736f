"""A trace on a disk that fails, and one that several writers left lines in."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from dataclasses import fields
from pathlib import Path

import pytest

from kamera_agent.errors import InputError
from kamera_agent.telemetry.record import AnswerRecord, ReplySpan
from kamera_agent.telemetry.trace import Trace, read_trace
from kamera_agent.window.reply import Timings, Usage

USAGE = Usage(**{figure.name: 0 for figure in fields(Usage)})
TIMINGS = Timings(**{figure.name: 0.0 for figure in fields(Timings)})


def make_record(time: str) -> AnswerRecord:
    return AnswerRecord(time, "pocket", "a → b", (), ReplySpan(None, 0, "stop"), USAGE, TIMINGS)


FIRST, SECOND = make_record("1"), make_record("2")


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace.jsonl")


def test_a_line_that_was_cut_anywhere_costs_itself_only(trace: Trace) -> None:
    """Its process died, or the disk was full; the next record is written by another one."""
    trace.write(FIRST)
    whole = trace.path.read_bytes()
    for length in range(1, len(whole) - 1):
        trace.path.write_bytes(whole + whole[:length])
        assert read_trace(trace.path) == [FIRST]
        Trace(trace.path).write(SECOND)
        assert read_trace(trace.path) == [FIRST, SECOND]


@pytest.mark.parametrize("line", ['{"time": 5}', "{} {", "[1, 2", "null", "<html>", '{"a": 1}{"b": 2}'])
def test_another_file_is_no_trace(trace: Trace, line: str) -> None:
    trace.write(FIRST)
    with trace.path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"Line 2 of .* is not a record of a trace"):
        read_trace(trace.path)


def test_a_disk_that_fails_is_said_once_and_raises_nothing(
    trace: Trace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kamera_agent.telemetry")
    trace.write(FIRST)
    write = os.write

    def full(file: int, data: bytes) -> int:
        return write(file, data[:20]) if not full.left else _no_space()  # type: ignore[attr-defined]

    def _no_space() -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for left in (False, True):
        full.left = left  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            for _ in range(5):
                trace.write(SECOND)
    trace.write(SECOND)
    assert read_trace(trace.path) == [FIRST, SECOND]
    assert [(line.levelname, line.exc_info) for line in caplog.records] == [("WARNING", None), ("INFO", None)]
    assert "trace.jsonl cannot be written" in caplog.text
    assert "is written again" in caplog.text


def test_a_folder_that_cannot_be_made_raises_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    trace = Trace(tmp_path / "file" / "trace.jsonl")
    trace.write(FIRST)
    assert len(caplog.records) == 1


def test_only_its_owner_may_read_it(trace: Trace) -> None:
    before = os.umask(0)
    try:
        trace.write(FIRST)
    finally:
        os.umask(before)
    assert stat.S_IMODE(trace.path.stat().st_mode) == 0o600
    assert json.loads(trace.path.read_bytes())["time"] == "1"
