"""`kamera ls` and `kamera show`: the chunks in a store, and one of them with its records."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from kamera_agent.cli.arguments import Order
from kamera_agent.cli.catalog import SHORT_DIGEST, StoredChunk, as_age, as_date, find_chunk, read_chunks
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.store.lmdb_store import LmdbStore


def show_chunks(path: Path, key: str | None, namespace: str | None, order: Order, as_json: bool) -> None:
    """Print the chunks in a store, or of a namespace."""
    with LmdbStore(path, repair=False, key=key) as store:
        chunks = read_chunks(store, namespace, order)
    if as_json:
        typer.echo(json.dumps([asdict(chunk) for chunk in chunks], indent=2))
        return
    table = Table("chunk", "kind", "pixels", "namespace", "model", box=None, pad_edge=False)
    for name in ("bytes", "contexts", "hits", "age", "used", "pinned", "rank", "error"):
        table.add_column(name, justify="right")
    for chunk in chunks:
        table.add_row(*_cells(chunk))
    make_console().print(table)


def show_chunk(path: Path, key: str | None, prefix: str, as_json: bool) -> None:
    """Print a chunk with its records. Raises InputError when not exactly one has a key that begins with prefix."""
    with LmdbStore(path, repair=False, key=key) as store:
        chunk = find_chunk(read_chunks(store), prefix)
    if as_json:
        typer.echo(json.dumps(asdict(chunk), indent=2))
        return
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("chunk", chunk.digest),
        ("kind", chunk.fact("kind")),
        ("pixels", chunk.size),
        ("namespace", chunk.namespace),
        ("model", chunk.model),
        ("bytes", format_bytes(chunk.num_bytes)),
        ("stored", as_date(chunk.stored)),
        ("last used", as_date(chunk.used)),
        ("hits", str(chunk.hits)),
        ("pinned", "yes" if chunk.pinned else "no"),
    ):
        facts.add_row(name, value)
    records = Table("record", "kind", "bytes", "hits", "last used", "rank", "error", "exact", "computed after")
    for record in chunk.records:
        records.add_row(
            record.digest[:SHORT_DIGEST],
            record.kind,
            format_bytes(record.num_bytes),
            str(record.hits),
            as_date(record.used),
            _range(record.ranks or (), "d"),
            _range([] if record.error is None else [record.error], ".3f"),
            {True: "yes", False: "no", None: "-"}[record.exact],
            " ".join(digest[:SHORT_DIGEST] for digest in record.antecedents) or "no other chunk",
        )
    console = make_console()
    console.print(facts)
    console.print(records)


def _cells(chunk: StoredChunk) -> list[str]:
    return [
        chunk.digest[:SHORT_DIGEST],
        chunk.fact("kind"),
        chunk.size,
        chunk.namespace,
        chunk.model,
        format_bytes(chunk.num_bytes),
        str(chunk.contexts),
        str(chunk.hits),
        as_age(chunk.stored),
        as_age(chunk.used),
        "yes" if chunk.pinned else "no",
        _range([rank for patch in chunk.patches for rank in patch.ranks or ()], "d"),
        _range([patch.error for patch in chunk.patches if patch.error is not None], ".3f"),
    ]


def _range(values: Any, form: str) -> str:
    if not values:
        return "-"
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"
