"""`kamera resize`: the cap of a store."""

from __future__ import annotations

from pathlib import Path

import typer

from kamera_agent.cli.console import format_bytes
from kamera_agent.store.lmdb_store import LmdbStore


def resize_store(path: Path, cap_bytes: int) -> None:
    """Set the cap of a store and print what is left in it."""
    with LmdbStore(path) as store:
        store.resize(cap_bytes)
        stats = store.stats()
    typer.echo(f"{stats.num_records} records, {format_bytes(stats.num_bytes)} of at most {format_bytes(cap_bytes)}.")
