"""The chunks of a store, each with the records that belong to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kamera_agent.chunk import Header
from kamera_agent.cli.arguments import Order
from kamera_agent.cli.text import printable
from kamera_agent.errors import InputError
from kamera_agent.store.entry import Entry
from kamera_agent.store.lmdb_store import LmdbStore

SHORT_DIGEST = 12


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A base or a patch, from its header and its entry.

    antecedents: digests of the chunks that its KV was computed after, in order. exact: whether that KV is a full
    prefill's. ranks, error: of a patch, per layer, and relative error of the fit.
    stored, used: seconds since 1970. hits: uses since it was stored.
    """

    digest: str
    kind: str
    num_bytes: int
    stored: float
    used: float
    hits: int
    antecedents: tuple[str, ...]
    exact: bool | None
    ranks: tuple[int, ...] | None
    error: float | None


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk and its records.

    facts: key material of a base. num_bytes: of all records. contexts: number of different runs that a record was
    computed after. stored: when the first record was. used: when the last one was. hits: of its bases, because whoever
    uses a patch uses its base. pinned: whether its records are evicted after all others.
    """

    digest: str
    facts: dict[str, Any]
    pinned: bool
    num_bytes: int
    contexts: int
    hits: int
    stored: float
    used: float
    records: tuple[StoredRecord, ...]

    @property
    def namespace(self) -> str:
        """The namespace, or "-"."""
        return self.fact("namespace")

    @property
    def model(self) -> str:
        """The type of the model, or "-"."""
        return printable(str(self.facts.get("model", {}).get("config", {}).get("model_type", "-")))

    @property
    def size(self) -> str:
        """The size of its pixels: 1280x720 of an image, 2 x 768x576 of frames, and "-" of a document."""
        shape = self.facts.get("shape", [])
        if len(shape) < 3:
            return "-"
        height, width = shape[-3:-1]
        return f"{width}x{height}" if len(shape) == 3 else f"{shape[0]} x {width}x{height}"

    @property
    def patches(self) -> list[StoredRecord]:
        """Its patches."""
        return [record for record in self.records if record.kind == "patch"]

    def fact(self, name: str) -> str:
        """A fact of the key material as text, or "-"."""
        return printable(str(self.facts.get(name, "-")))


# What comes first: the largest, the most used, the oldest, the last used.
ORDERS: dict[Order, Callable[[StoredChunk], Any]] = {
    "name": lambda chunk: (chunk.namespace, chunk.fact("kind"), chunk.digest),
    "size": lambda chunk: -chunk.num_bytes,
    "hits": lambda chunk: -chunk.hits,
    "age": lambda chunk: chunk.stored,
    "used": lambda chunk: -chunk.used,
}


def read_chunks(store: LmdbStore, namespace: str | None = None, order: Order = "name") -> list[StoredChunk]:
    """The chunks of a store, or of one namespace, in an order. Counts nothing as used."""
    entries, pins, by_chunk = store.entries(), store.pins(), dict[bytes, list[Header]]()
    for header in store.headers():
        by_chunk.setdefault(header.chunk, []).append(header)
    chunks = [_chunk(digest, headers, entries, digest in pins) for digest, headers in by_chunk.items()]
    wanted = [chunk for chunk in chunks if namespace in (None, chunk.facts.get("namespace"))]
    return sorted(sorted(wanted, key=ORDERS["name"]), key=ORDERS[order])


def find_chunk(chunks: Iterable[StoredChunk], key: str) -> StoredChunk:
    """The one chunk whose digest, or the digest of one of whose records, begins with a key. Raises InputError."""
    prefix = key.lower()
    found = [
        chunk
        for chunk in chunks
        if any(digest.startswith(prefix) for digest in (chunk.digest, *(record.digest for record in chunk.records)))
    ]
    if not key or not found:
        raise InputError(f"No chunk and no record has a key that begins with {key[:80]!r}; `kamera ls` shows the keys.")
    if len(found) > 1:
        some = ", ".join(chunk.digest[:SHORT_DIGEST] for chunk in found[:5])
        raise InputError(
            f"{len(found)} chunks have keys that begin with {key[:80]!r}, such as {some}; give more of it."
        )
    return found[0]


def as_date(seconds: float) -> str:
    """Seconds since 1970 as a date and time of UTC, such as 2026-11-28 07:30:00."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def as_age(seconds: float) -> str:
    """The time from a moment, in seconds since 1970, until now, such as 3 d."""
    age = max(0.0, time.time() - seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age >= size:
            return f"{age / size:.0f} {unit}"
    return f"{age:.0f} s"


def _chunk(digest: bytes, headers: list[Header], entries: Mapping[bytes, Entry], pinned: bool) -> StoredChunk:
    # A record may have been written or removed between the two readings.
    headers = sorted(headers, key=lambda header: (header.kind, header.key.digest))
    records = tuple(_record(header, entries.get(header.key.digest)) for header in headers)
    return StoredChunk(
        digest=digest.hex(),
        facts=json.loads(headers[0].key.material),
        pinned=pinned,
        num_bytes=sum(record.num_bytes for record in records),
        contexts=len({header.attributes.get("chain") for header in headers}),
        hits=sum(record.hits for record in records if record.kind == "base"),
        stored=min(record.stored for record in records),
        used=max(record.used for record in records),
        records=records,
    )


def _record(header: Header, entry: Entry | None) -> StoredRecord:
    facts = header.attributes
    return StoredRecord(
        digest=header.key.digest.hex(),
        kind=header.kind,
        num_bytes=header.num_bytes,
        stored=0.0 if entry is None else entry.put_ns / 1e9,
        used=0.0 if entry is None else entry.tick / 1e9,
        hits=0 if entry is None else entry.hits,
        antecedents=tuple(facts.get("chunks", ())),
        exact=facts.get("exact"),
        ranks=tuple(facts["ranks"]) if "ranks" in facts else None,
        error=facts.get("error"),
    )
