"""The work of a worker process, in a module that it can import."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.real.run import Subject, run_case
from benchmarks.real.weights import load


class Job(NamedTuple):
    """A case. parts: folder for its rows; None keeps none."""

    packages: Path
    dtype: str
    parts: Path | None
    seed: int


@cache
def _subject(packages: Path, dtype: str) -> Subject:
    return Subject.of(load(packages, getattr(torch, dtype)))


def run_job(job: Job) -> list[dict[str, Any]]:
    """The rows of a case, from the file of it where an earlier run left one."""
    file = job.parts and job.parts / f"{job.dtype}-{job.seed}.json"
    if file and file.exists():
        rows: list[dict[str, Any]] = json.loads(file.read_text())
        return rows
    rows = run_case(_subject(job.packages, job.dtype), job.seed)
    if file:
        half = file.with_suffix(".part")
        half.write_text(json.dumps(rows))
        half.rename(file)
    return rows
