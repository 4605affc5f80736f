"""`kamera resize`, `kamera prune` and `kamera pin`: how much a store may hold, what is removed, and what stays."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from kamera_agent.cli.catalog import find_chunk, read_chunks
from kamera_agent.cli.console import format_bytes
from kamera_agent.store.base import StoreStats
from kamera_agent.store.lmdb_store import LmdbStore


def resize_store(path: Path, key: str | None, cap_bytes: int) -> None:
    """Set the cap of a store and print what is left in it."""
    with LmdbStore(path, repair=False, key=key) as store:
        store.resize(cap_bytes)
        typer.echo(f"{_holdings(store.stats())}.")


def pin_chunk(path: Path, key: str | None, prefix: str, wanted: bool) -> None:
    """Pin a chunk of a store, or take its pin away, and say so. Raises InputError as find_chunk() does."""
    with LmdbStore(path, repair=False, key=key) as store:
        digest = find_chunk(read_chunks(store), prefix).digest
        (store.pin if wanted else store.unpin)(bytes.fromhex(digest))
    typer.echo(f"{digest} is {'pinned' if wanted else 'not pinned'}.")


def prune_store(
    path: Path,
    key: str | None,
    max_bytes: int | None,
    unused_s: float | None,
    stored_s: float | None,
    namespace: str | None,
) -> None:
    """Remove records of a store, by size, last use, age and namespace, and print how many and what is left."""
    with LmdbStore(path, repair=False, key=key) as store:
        before = store.stats().num_records
        if namespace is not None:
            bases = [header.key for header in store.headers() if header.kind == "base"]
            # Patches go with their bases.
            store.delete([key for key in bases if json.loads(key.material).get("namespace") == namespace])
        store.prune(max_bytes, unused_s, stored_s)
        stats = store.stats()
    typer.echo(f"{before - stats.num_records} records removed; {_holdings(stats)} are left.")


def _holdings(stats: StoreStats) -> str:
    sizes = f"{format_bytes(stats.num_bytes)} of at most {format_bytes(stats.cap_bytes)}"
    return f"{stats.num_records} records, {sizes}"
