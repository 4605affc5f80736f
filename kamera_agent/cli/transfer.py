"""`kamera export` and `kamera import`: the chunks of a store as one file, for another machine."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import typer
from rich.console import Console

from kamera_agent.chunk import Record
from kamera_agent.cli.catalog import read_chunks
from kamera_agent.cli.console import format_bytes
from kamera_agent.errors import ArchiveError, CorruptRecordError, InputError, StoreUnavailableError
from kamera_agent.store.archive import read_archive, write_archive
from kamera_agent.store.base import StoreStats
from kamera_agent.store.capacity import record_bytes
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.window.attributes import require_readable


def export_chunks(
    path: Path, key: str | None, file: Path, namespace: str | None, unencrypted: bool, as_json: bool
) -> None:
    """Write the chunks of a store, or of a namespace, to an archive, which appears once it is whole.

    Raises InputError for an encrypted store, unless the archive may be unencrypted.
    """
    with LmdbStore(path, repair=False, key=key) as store, Console(stderr=True).status("Writing"):
        if store.is_encrypted and not unencrypted:
            raise InputError(
                "The store is encrypted, and an archive is not; pass --unencrypted if you protect the file."
            )
        num_records = _write(file, _records(store, namespace))
    size = file.stat().st_size
    if as_json:
        typer.echo(json.dumps({"archive": str(file), "num_records": num_records, "num_bytes": size}, indent=2))
    else:
        typer.echo(f"{num_records} records, {format_bytes(size)}, are in {file}.")


def import_chunks(file: Path, path: Path, key: str | None, as_json: bool) -> None:
    """Check the whole of an archive, then put its records into a store.

    Raises ArchiveError for a hostile or damaged file, and InputError for one that cannot be read or is larger than the
    cap, all with the store unchanged; and StoreUnavailableError where the medium fails later.
    """
    try:
        with file.open("rb") as archive, Console(stderr=True).status("Reading the archive"):
            sizes = [record_bytes(record.header) for record in _verified(archive)]
            archive.seek(0)
            with LmdbStore(path, repair=False, key=key) as store:
                stats = _put(store, sum(sizes), _verified(archive))
    except OSError as error:
        raise InputError(f"The archive {file} cannot be read: {error.strerror or error}.") from error
    if as_json:
        typer.echo(json.dumps({"store": str(path), "num_records": len(sizes), "evictions": stats.evictions}, indent=2))
        return
    sizes_now = f"{format_bytes(stats.num_bytes)} of at most {format_bytes(stats.cap_bytes)}"
    typer.echo(
        f"{len(sizes)} records were imported, and {stats.evictions} others removed; the store holds "
        f"{stats.num_records} records, {sizes_now}."
    )


def _put(store: LmdbStore, num_bytes: int, records: Iterator[Record]) -> StoreStats:
    cap_bytes = store.stats().cap_bytes
    if num_bytes > cap_bytes:
        raise InputError(
            f"The archive takes {format_bytes(num_bytes)}, and the store may hold {format_bytes(cap_bytes)}; "
            "`kamera resize` changes that."
        )
    store.put_many(records)
    store.flush()
    stats = store.stats()
    if stats.failed_writes:
        raise StoreUnavailableError(f"{stats.failed_writes} records could not be written; the log says why.")
    return stats


def _records(store: LmdbStore, namespace: str | None) -> Iterator[Record]:
    wanted = {chunk.digest for chunk in read_chunks(store, namespace)}
    return store.records(header for header in store.headers() if header.chunk.hex() in wanted)


def _verified(archive: IO[bytes]) -> Iterator[Record]:
    for record in read_archive(archive):
        try:
            require_readable(record.header)
        except (CorruptRecordError, ValueError) as error:
            raise ArchiveError(f"A record of the archive was not written by kamera_agent: {error}.") from error
        yield record


def _write(file: Path, records: Iterator[Record]) -> int:
    """Write an archive, which appears once it is whole, and return the number of its records. Raises InputError."""
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as draft:
            try:
                num_records = write_archive(draft.file, records)
                draft.close()
                os.replace(draft.name, file)
            except BaseException:
                with suppress(OSError):
                    os.unlink(draft.name)
                raise
    except OSError as error:
        raise InputError(f"The archive {file} cannot be written: {error.strerror or error}.") from error
    return num_records
