"""`kamera verify`: read and check every record in a store."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from kamera_agent.cli.console import format_bytes
from kamera_agent.store.lmdb_store import LmdbStore


def verify_store(path: Path) -> None:
    """Check a store and print its problems. Raises typer.Exit(1) after problems."""
    with LmdbStore(path) as store:
        stats = store.stats()
        activity = f"Reading {stats.num_records} records, {format_bytes(stats.num_bytes)}"
        with Console(stderr=True).status(activity):
            report = store.check()
    for problem in report.problems:
        typer.echo(problem)
    whole = f"{report.num_records} records, {format_bytes(report.num_bytes)}, are whole"
    if not report.problems:
        typer.echo(f"{whole}.")
        return
    num_problems = len(report.problems)
    typer.echo(f"{whole}; {num_problems} {'problem was' if num_problems == 1 else 'problems were'} found.")
    raise typer.Exit(1)
