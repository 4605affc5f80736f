"""What a store may hold, and for how long: `kamera resize`, `quota`, `ttl`, `policy`, `pin` and `prune`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from kamera_agent.cli.catalog import find_chunk, read_chunks
from kamera_agent.cli.console import format_bytes
from kamera_agent.config import Policy
from kamera_agent.store.base import StoreStats
from kamera_agent.store.lmdb_store import LmdbStore


def resize_store(path: Path, key: str | None, cap_bytes: int, as_json: bool) -> None:
    """Set the cap of a store, and print how many records went and what is left."""
    with LmdbStore(path, repair=False, key=key) as store:
        before = store.stats().num_records
        store.resize(cap_bytes)
        stats = store.stats()
    _report(before, stats, as_json)


def set_quota(path: Path, key: str | None, quota_bytes: int | None, namespace: str | None, as_json: bool) -> None:
    """Set what each namespace may hold, or one, and print how many records went and what is left."""
    with LmdbStore(path, repair=False, key=key) as store:
        before = store.stats().num_records
        store.set_quota(quota_bytes, namespace)
        stats = store.stats()
    _report(before, stats, as_json)


def set_ttl(path: Path, key: str | None, ttl_s: int | None, as_json: bool) -> None:
    """Set how long a record is kept, and print how many records went and what is left."""
    with LmdbStore(path, repair=False, key=key) as store:
        before = store.stats().num_records
        store.set_ttl(ttl_s)
        stats = store.stats()
    _report(before, stats, as_json)


def choose_policy(path: Path, key: str | None, policy: Policy, as_json: bool) -> None:
    """Set what a store evicts first, and say so."""
    with LmdbStore(path, repair=False, key=key) as store:
        store.set_policy(policy)
    typer.echo(json.dumps({"policy": policy}, indent=2) if as_json else f"The store evicts by {policy}.")


def pin_chunk(path: Path, key: str | None, prefix: str, wanted: bool, as_json: bool) -> None:
    """Pin a chunk of a store, or take its pin away, and say so. Raises InputError as find_chunk() does."""
    with LmdbStore(path, repair=False, key=key) as store:
        digest = find_chunk(read_chunks(store), prefix).digest
        (store.pin if wanted else store.unpin)(bytes.fromhex(digest))
    said = f"{digest} is {'pinned' if wanted else 'not pinned'}."
    typer.echo(json.dumps({"digest": digest, "pinned": wanted}, indent=2) if as_json else said)


def prune_store(
    path: Path,
    key: str | None,
    max_bytes: int | None,
    unused_s: float | None,
    stored_s: float | None,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Remove records of a store, by size, last use, age and namespace, and print how many and what is left."""
    with LmdbStore(path, repair=False, key=key) as store:
        before = store.stats().num_records
        if namespace is not None:
            bases = [header.key for header in store.headers() if header.kind == "base"]
            # Patches go with their bases.
            store.delete([key for key in bases if key.namespace == namespace])
        store.prune(max_bytes, unused_s, stored_s)
        stats = store.stats()
    _report(before, stats, as_json)


def _report(before: int, stats: StoreStats, as_json: bool) -> None:
    """Print the records that went and those that are left. before: their number at first."""
    removed = before - stats.num_records
    if as_json:
        sizes = {"num_records": stats.num_records, "num_bytes": stats.num_bytes, "cap_bytes": stats.cap_bytes}
        typer.echo(json.dumps({"removed": removed, **sizes}, indent=2))
        return
    sizes_now = f"{format_bytes(stats.num_bytes)} of at most {format_bytes(stats.cap_bytes)}"
    typer.echo(f"{removed} records removed; {stats.num_records} records, {sizes_now} are left.")
