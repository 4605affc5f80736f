"""`kamera ingest`: the chunks of a library into a store."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from kamera_agent.cli.exits import FAILED
from kamera_agent.errors import SettingError
from kamera_agent.ingest.crews import alone, in_processes, on_ray
from kamera_agent.ingest.files import find_media
from kamera_agent.ingest.ingester import Job, Outcome
from kamera_agent.progress import Progress


def ingest(paths: Sequence[Path], job: Job, num_workers: int, ray: str | None, as_json: bool) -> None:
    """Fill a store, print what became of the files, and exit with FAILED where one of them failed.

    ray: address of a cluster. Raises KameraError.
    """
    if not (math.isfinite(job.fps) and job.fps > 0):
        raise SettingError(f"--fps is {job.fps}; use a number above 0.")
    files = find_media(paths)
    start = time.perf_counter()
    if ray is not None:
        outcomes = on_ray(job, files, ray, num_workers)
    elif num_workers > 1:
        outcomes = in_processes(job, files, num_workers)
    else:
        outcomes = alone(job, files)
    done = _watch(outcomes, len(files))
    _report(done, time.perf_counter() - start, as_json)
    if any(outcome.error for outcome in done):
        raise typer.Exit(FAILED)


def _watch(outcomes: Iterable[Outcome], num_files: int) -> list[Outcome]:
    """The outcomes, with a bar while they come, and a line on stderr for every file that failed."""
    done = []
    with Progress("files", num_files) as progress:
        for outcome in outcomes:
            done.append(outcome)
            progress.advance()
            if outcome.error:
                typer.echo(f"{outcome.path}: {outcome.error}", err=True)
    return done


def _report(done: Sequence[Outcome], seconds: float, as_json: bool) -> None:
    computed, known = (sum(getattr(outcome, name) for outcome in done) for name in ("num_computed", "num_known"))
    failed = [outcome for outcome in done if outcome.error]
    if as_json:
        facts = {"files": len(done), "computed": computed, "known": known, "seconds": round(seconds, 3)}
        typer.echo(json.dumps({**facts, "failed": {str(one.path): one.error for one in failed}}))
        return
    typer.echo(
        f"{len(done)} files in {seconds:.1f} s: {computed} chunks computed, {known} were in the store, "
        f"{len(failed)} files failed."
    )
