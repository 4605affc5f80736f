"""`kamera stats`: the records in a store, by kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import typer
from rich.table import Table
from rich.text import Text

from kamera_agent.chunk import Header, RecordKind
from kamera_agent.cli.console import format_bytes, make_console
from kamera_agent.store.lmdb_store import LmdbStore


@dataclass(frozen=True, slots=True)
class Holding:
    """The number of records of one kind, and the bytes of their tensors."""

    num_records: int
    num_bytes: int


def show_stats(path: Path, key: str | None, as_json: bool) -> None:
    """Print the holdings of a store."""
    with LmdbStore(path, repair=False, key=key) as store:
        stats, holdings = store.stats(), count(store.headers())
        policy, quota_bytes, quotas, ttl_s = store.policy, store.quota_bytes, store.quotas(), store.ttl_s
    if as_json:
        sizes = {"num_records": stats.num_records, "num_bytes": stats.num_bytes, "cap_bytes": stats.cap_bytes}
        kinds = {kind: asdict(holding) for kind, holding in holdings.items()}
        agreed = {"policy": policy, "quota_bytes": quota_bytes, "quotas": quotas, "ttl_s": ttl_s}
        typer.echo(json.dumps({"store": str(path), **sizes, **agreed, "kinds": kinds}, indent=2))
        return
    table = Table("kind")
    table.add_column("records", justify="right")
    table.add_column("size", justify="right")
    for kind, holding in holdings.items():
        table.add_row(kind, str(holding.num_records), format_bytes(holding.num_bytes))
    table.add_section()
    table.add_row("all", str(stats.num_records), format_bytes(stats.num_bytes))
    table.add_row("cap", "", format_bytes(stats.cap_bytes))
    if quota_bytes is not None:
        table.add_row("cap of a namespace", "", format_bytes(quota_bytes))
    for namespace, own_bytes in quotas.items():
        table.add_row(Text(f"cap of {namespace!r}"), "", format_bytes(own_bytes))
    if ttl_s is not None:
        table.add_row("kept for", "", f"{ttl_s} s")
    table.add_row("evicts by", "", policy)
    console = make_console()
    console.print(path, soft_wrap=True)
    console.print(table)


def count(headers: Iterable[Header]) -> dict[RecordKind, Holding]:
    """Holdings by kind, with every kind present."""
    sizes_by_kind: dict[RecordKind, list[int]] = {kind: [] for kind in get_args(RecordKind)}
    for header in headers:
        sizes_by_kind[header.kind].append(header.num_bytes)
    return {kind: Holding(len(sizes), sum(sizes)) for kind, sizes in sizes_by_kind.items()}
