"""`kamera ls`: the chunks in a store with their patches."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from kamera_agent.chunk import Header
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.store.lmdb_store import LmdbStore

SHORT_DIGEST = 12


@dataclass(frozen=True, slots=True)
class StoredPatch:
    """A patch, from its header.

    ranks: per layer. error: relative error of the fit. antecedents: digests of the chunks before it, in order.
    """

    ranks: tuple[int, ...]
    error: float
    antecedents: tuple[str, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk, from its headers.

    facts: key material of a base. base_bytes: size of its bases; different settings have bases of their own.
    """

    digest: str
    facts: dict[str, Any]
    base_bytes: int
    patches: tuple[StoredPatch, ...]


def show_chunks(path: Path, as_json: bool) -> None:
    """Print the chunks in a store."""
    with LmdbStore(path) as store:
        chunks = gather(store.headers())
    if as_json:
        typer.echo(json.dumps([asdict(chunk) for chunk in chunks], indent=2))
        return
    table = Table("chunk", "kind", "size", "namespace", "model", box=None, pad_edge=False)
    for name in ("base", "patches"):
        table.add_column(name, justify="right")
    for name in ("rank", "error"):
        table.add_column(name)
    for chunk in chunks:
        table.add_row(*_cells(chunk))
    make_console().print(table)


def gather(headers: Iterable[Header]) -> list[StoredChunk]:
    """Group headers by chunk. The chunks are sorted by namespace, kind and digest."""
    by_chunk: dict[bytes, list[Header]] = {}
    for header in headers:
        by_chunk.setdefault(header.chunk, []).append(header)
    chunks = [_chunk(digest, group) for digest, group in by_chunk.items()]
    return sorted(chunks, key=lambda chunk: (_fact(chunk, "namespace"), _fact(chunk, "kind"), chunk.digest))


def _chunk(digest: bytes, headers: list[Header]) -> StoredChunk:
    bases = [header for header in headers if header.kind == "base"]
    return StoredChunk(
        digest=digest.hex(),
        facts=json.loads(bases[0].key.material),
        base_bytes=sum(header.num_bytes for header in bases),
        patches=tuple(_patch(header) for header in headers if header.kind == "patch"),
    )


def _patch(header: Header) -> StoredPatch:
    facts = header.attributes
    return StoredPatch(tuple(facts["ranks"]), facts["error"], tuple(facts["chunks"]), header.num_bytes)


def _cells(chunk: StoredChunk) -> list[str]:
    config = chunk.facts.get("model", {}).get("config", {})
    return [
        chunk.digest[:SHORT_DIGEST],
        _fact(chunk, "kind"),
        _size(chunk.facts.get("shape", [])),
        _fact(chunk, "namespace"),
        config.get("model_type", "-"),
        format_bytes(chunk.base_bytes),
        str(len(chunk.patches)),
        _range([rank for patch in chunk.patches for rank in patch.ranks], "d"),
        _range([patch.error for patch in chunk.patches], ".3f"),
    ]


def _fact(chunk: StoredChunk, name: str) -> str:
    return str(chunk.facts.get(name, "-"))


def _size(shape: list[int]) -> str:
    """A shape [height, width, 3] as 1280x720, and [frames, height, width, 3] as 2 x 768x576."""
    if len(shape) < 3:
        return "-"
    height, width = shape[-3:-1]
    return f"{width}x{height}" if len(shape) == 3 else f"{shape[0]} x {width}x{height}"


def _range(values: list[Any], form: str) -> str:
    if not values:
        return "-"
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"
