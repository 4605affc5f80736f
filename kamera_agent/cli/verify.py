"""`kamera verify`: read and check every record in a store."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console

from kamera_agent.cli.console import format_bytes
from kamera_agent.cli.exits import DAMAGED
from kamera_agent.store.lmdb_store import LmdbStore


def verify_store(path: Path, key: str | None, repair: bool, as_json: bool) -> None:
    """Check a store and print its problems. Raises typer.Exit(DAMAGED) after problems, repaired or not."""
    with LmdbStore(path, repair=repair, key=key) as store:
        stats = store.stats()
        activity = f"Reading {stats.num_records} records, {format_bytes(stats.num_bytes)}"
        with Console(stderr=True).status(activity):
            report = store.check()
    if as_json:
        typer.echo(json.dumps({**asdict(report), "repaired": repair and bool(report.problems)}, indent=2))
    else:
        for problem in report.problems:
            typer.echo(problem)
        typer.echo(_summary(report.num_records, report.num_bytes, len(report.problems), repair))
    if report.problems:
        raise typer.Exit(DAMAGED)


def _summary(num_records: int, num_bytes: int, num_problems: int, repair: bool) -> str:
    whole = f"{num_records} records, {format_bytes(num_bytes)}, are whole"
    if num_problems == 0:
        return f"{whole}."
    found = f"{num_problems} {'problem was' if num_problems == 1 else 'problems were'} found"
    return f"{whole}; {found}{', and what is damaged was removed' if repair else '; --repair removes what is damaged'}."
