"""The work of a worker process, in a module that it can import."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.real.run import Subject, run_case
from benchmarks.real.weights import load


class Job(NamedTuple):
    """Events of a case. parts: folder for its rows; None keeps none."""

    packages: Path
    dtype: str
    parts: Path | None
    seed: int
    events: Sequence[str]

    def file(self, event: str) -> Path | None:
        """Where the row of an event is kept."""
        return self.parts and self.parts / f"{self.dtype}-{event}-{self.seed}.json"


@cache
def _subject(packages: Path, dtype: str) -> Subject:
    return Subject.of(load(packages, getattr(torch, dtype)))


def run_job(job: Job) -> list[dict[str, Any]]:
    """The rows of a case, those from files that an earlier run left."""
    return [_run_event(job, event, job.file(event)) for event in job.events]


def _run_event(job: Job, event: str, file: Path | None) -> dict[str, Any]:
    if file and file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        return kept
    [row] = run_case(_subject(job.packages, job.dtype), job.seed, [event])
    if file:
        half = file.with_suffix(".part")
        half.write_text(json.dumps(row))
        half.rename(file)
    return row
