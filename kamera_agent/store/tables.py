"""The tables of the database, and the changes that keep them consistent.

headers     digest -> header bytes
values      digest, number (4 bytes) -> value bytes
entries     digest -> Entry: last use, bytes counted, time of the put, number of uses, namespace, chunk, base of a patch
uses        tick (8 bytes), digest -> nothing        the least recently used record comes first
puts        time (8 bytes, ns), digest -> nothing    the record that was stored first comes first
chunks      chunk, digest -> nothing                 the records of one chunk
patches     base, digest -> nothing                  the patches over one base
totals      see totals.py
quarantine  time (8 bytes, ns), digest -> reason     the latest damaged records

Integers are big-endian, because LMDB sorts keys by their bytes. Every method runs inside the transaction it is
given and leaves all tables consistent, so a commit publishes whole records and a crash leaves no partial ones.

A patch means nothing without its base, so a base that is removed takes its patches with it. Using a patch uses its base
one tick later, so a base is evicted after all its patches, and no patch in use goes with it. Adding the base to one of
the patches instead would free next to nothing: the sum takes as many bytes as the base.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from kamera_agent.store.codec import Encoded
from kamera_agent.store.entry import DIGEST_BYTES, Entry
from kamera_agent.store.eviction import order
from kamera_agent.store.totals import Totals, is_total
from kamera_agent.store.transaction import Transaction, rows_after, unpack_number

MAX_QUARANTINE_NOTES = 1000
MAX_REASON_BYTES = 1000
_TIME = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")


@dataclass(slots=True)
class Tables(Totals):
    """Handles of the tables, which change when the database is opened again. The names are those in the database."""

    headers: Any
    values: Any
    entries: Any
    uses: Any
    puts: Any
    chunks: Any
    patches: Any
    quarantine: Any

    @classmethod
    def unopened(cls) -> Tables:
        """Tables without handles."""
        return cls(*(None for _ in fields(cls)))

    def header(self, txn: Transaction, digest: bytes) -> memoryview | None:
        """The header bytes of a record."""
        return txn.get(digest, db=self.headers)

    def value(self, txn: Transaction, digest: bytes, number: int) -> memoryview | None:
        """One value of a record."""
        return txn.get(digest + _NUMBER.pack(number), db=self.values)

    def entry(self, txn: Transaction, digest: bytes) -> Entry | None:
        """The entry of a record."""
        packed = txn.get(digest, db=self.entries)
        return None if packed is None else Entry.unpack(packed)

    def all_entries(self, txn: Transaction) -> dict[bytes, Entry]:
        """The entries of all records, by digest. Raises CorruptRecordError."""
        return {bytes(digest): Entry.unpack(packed) for digest, packed in txn.cursor(self.entries)}

    def digests(self, txn: Transaction, chunk: bytes | None = None) -> list[bytes]:
        """Digests of the records of one chunk, or of all."""
        if chunk is None:
            return [bytes(key) for key in txn.cursor(self.entries).iternext(values=False)]
        return [key[DIGEST_BYTES:] for key in rows_after(txn, self.chunks, chunk)]

    def patches_over(self, txn: Transaction, digest: bytes) -> list[bytes]:
        """Digests of the patches over a base."""
        return [key[DIGEST_BYTES:] for key in rows_after(txn, self.patches, digest)]

    def num_records(self, txn: Transaction) -> int:
        """Number of stored records."""
        return int(txn.stat(self.entries)["entries"])

    def has_expired(self, txn: Transaction, digest: bytes) -> bool:
        """Whether a record, or its base, was stored longer ago than records are kept."""
        expiry = self.expiry(txn)
        entry = self.entry(txn, digest) if expiry else None
        while entry and entry.put_ns >= expiry:
            entry = self.entry(txn, entry.base) if entry.base else None
        return entry is not None

    def last_tick(self, txn: Transaction) -> int:
        """Tick of the last use of any record; 0 in an empty database."""
        cursor = txn.cursor(self.uses)
        return unpack_number(_TIME, cursor.key()[: _TIME.size]) if cursor.last() else 0

    def problems(self, txn: Transaction) -> list[str]:
        """The contradictions between the tables. Raises CorruptRecordError."""
        entries = self.all_entries(txn)
        entry_bytes = sum(entry.num_bytes for entry in entries.values())
        held_bytes, problems = self.held_bytes(txn), []
        self.require_agreements(txn)
        if entry_bytes != held_bytes:
            problems.append(f"the total is {held_bytes} bytes, but the records add up to {entry_bytes}")
        by_namespace = Counter[bytes]()
        for entry in entries.values():
            by_namespace[entry.namespace] += entry.num_bytes
        if by_namespace != self.held_by_namespace(txn):
            problems.append("the totals of the namespaces are not what their records add up to")
        for name, table, expected in (
            ("headers", self.headers, entries.keys()),
            ("uses", self.uses, {_TIME.pack(entry.tick) + digest for digest, entry in entries.items()}),
            ("puts", self.puts, {_TIME.pack(entry.put_ns) + digest for digest, entry in entries.items()}),
            ("chunks", self.chunks, {entry.chunk + digest for digest, entry in entries.items()}),
            ("patches", self.patches, {entry.base + digest for digest, entry in entries.items() if entry.base}),
        ):
            if (rows := self._rows(txn, table)) != expected:
                num_lacking, num_more = len(expected - rows), len(rows - expected)
                problems.append(f"table {name} lacks {num_lacking} rows of {len(expected)}, and has {num_more} more")
        if num_more := sum(row[:DIGEST_BYTES] not in entries for row in self._rows(txn, self.values)):
            problems.append(f"table values has {num_more} rows of no record")
        if num_unknown := sum(not is_total(row) for row in self._rows(txn, self.totals)):
            problems.append(f"table totals has {num_unknown} unknown rows")
        for name in (field.name for field in fields(self)):
            table = getattr(self, name)
            # A damaged branch of the tree may lead elsewhere than to a row that a walk over all leaves meets.
            if num_astray := sum(txn.get(row, db=table) is None for row in self._rows(txn, table)):
                problems.append(f"{num_astray} rows of table {name} are not found by their keys")
        if alone := [digest.hex() for digest, entry in entries.items() if entry.base and entry.base not in entries]:
            problems.append(f"patches without their base: {', '.join(alone)}")
        return problems

    def put(self, txn: Transaction, digest: bytes, entry: Entry, encoded: Encoded) -> None:
        """Write a record in place of the stored one. If that is a base and differs, its patches go with it.

        The base of a patch must be stored.
        """
        # The header holds the checksums of all values. They are written anew even so, because one may be damaged.
        stored = self.header(txn, digest)
        if stored is not None and bytes(stored) == encoded.header and not self.has_expired(txn, digest):
            if known := self.entry(txn, digest):
                entry = entry._replace(put_ns=known.put_ns, hits=known.hits + entry.hits)
            self._remove_alone(txn, digest)
        else:
            self.remove(txn, digest)
        for number, value in enumerate(encoded.values):
            txn.put(digest + _NUMBER.pack(number), value.data, db=self.values)
        txn.put(digest, encoded.header, db=self.headers)
        txn.put(digest, entry.pack(), db=self.entries)
        txn.put(_TIME.pack(entry.tick) + digest, b"", db=self.uses)
        txn.put(_TIME.pack(entry.put_ns) + digest, b"", db=self.puts)
        txn.put(entry.chunk + digest, b"", db=self.chunks)
        self.add_bytes(txn, entry.namespace, entry.num_bytes)
        if entry.base:
            txn.put(entry.base + digest, b"", db=self.patches)
            self.use(txn, entry.base, entry.tick + 1)

    def remove(self, txn: Transaction, digest: bytes) -> None:
        """Remove a record, and the patches over it. An unknown digest is ignored."""
        for patch in self.patches_over(txn, digest):
            self._remove_alone(txn, patch)
        self._remove_alone(txn, digest)

    def _remove_alone(self, txn: Transaction, digest: bytes) -> None:
        entry = self.entry(txn, digest)
        if entry is None:
            return
        # A list, because deleting rows would move the cursor that finds them.
        for key in list(rows_after(txn, self.values, digest)):
            txn.delete(key, db=self.values)
        txn.delete(digest, db=self.headers)
        txn.delete(digest, db=self.entries)
        txn.delete(_TIME.pack(entry.tick) + digest, db=self.uses)
        txn.delete(_TIME.pack(entry.put_ns) + digest, db=self.puts)
        txn.delete(entry.chunk + digest, db=self.chunks)
        if entry.base:
            txn.delete(entry.base + digest, db=self.patches)
        self.add_bytes(txn, entry.namespace, -entry.num_bytes)

    def use(self, txn: Transaction, digest: bytes, tick: int, hits: int = 0) -> None:
        """Set the last use of a record, unless a later one is known, and that of its base to a tick later.

        hits: uses to count, for this record alone. An unknown digest is ignored.
        """
        entry = self.entry(txn, digest)
        if entry is None:
            return
        used = entry._replace(tick=max(entry.tick, tick), hits=entry.hits + hits)
        txn.delete(_TIME.pack(entry.tick) + digest, db=self.uses)
        txn.put(_TIME.pack(used.tick) + digest, b"", db=self.uses)
        txn.put(digest, used.pack(), db=self.entries)
        if entry.base and entry.tick < tick:
            self.use(txn, entry.base, tick + 1)

    def evict(self, txn: Transaction, max_bytes: int, max_records: int | None = None) -> int:
        """Remove records by the policy of the store until at most max_bytes are left. Returns their number.

        First those of namespaces above their quotas go, down to these. Those of pinned chunks go last.
        max_records: leave the rest for another transaction once so many are removed.
        """
        num_records = self.num_records(txn)
        bounded = self.own_quotas(txn) if self.quota_bytes(txn) is None else self.held_by_namespace(txn)
        for namespace in (*bounded, None):
            quota = None if namespace is None else self.quota_bytes(txn, namespace)
            bound = max_bytes if quota is None else quota
            if self.held_bytes(txn, namespace) > bound:
                for digest in self._by_worth(txn, namespace):
                    done = num_records - self.num_records(txn)
                    if self.held_bytes(txn, namespace) <= bound or (max_records is not None and done >= max_records):
                        break
                    self.remove(txn, digest)
        return num_records - self.num_records(txn)

    def _by_worth(self, txn: Transaction, namespace: bytes | None) -> Iterator[bytes]:
        """The records in the order in which they are evicted, those of one namespace or all.

        What was given may be removed before the next.
        """
        policy, pins = self.policy(txn), self.pins(txn)
        if policy != "lru":
            entries = self.all_entries(txn)
            entries = {digest: entry for digest, entry in entries.items() if namespace in (None, entry.namespace)}
            yield from order(entries, policy, pins, time.time_ns())
            return
        # Without reading them all: the table has them in order.
        for is_pinned in (False, True):
            for digest, entry in self._oldest(txn, self.uses):
                if (entry.chunk in pins) == is_pinned and namespace in (None, entry.namespace):
                    yield digest

    def expire_unused(self, txn: Transaction, tick: int, max_records: int) -> int:
        """Remove records that were last used before a tick, up to about max_records. Returns their number.

        Those of pinned chunks stay.
        """
        num_records, pins = self.num_records(txn), self.pins(txn)
        for digest, entry in self._oldest(txn, self.uses):
            if entry.tick >= tick or num_records - self.num_records(txn) >= max_records:
                break
            if entry.chunk not in pins:
                self.remove(txn, digest)
        return num_records - self.num_records(txn)

    def expire_stored(self, txn: Transaction, moment: int, max_records: int) -> int:
        """Remove records that were stored before a moment in ns since 1970, pinned or not. See expire_unused()."""
        num_records = self.num_records(txn)
        for digest, entry in self._oldest(txn, self.puts):
            if entry.put_ns >= moment or num_records - self.num_records(txn) >= max_records:
                break
            self.remove(txn, digest)
        return num_records - self.num_records(txn)

    def _oldest(self, txn: Transaction, table: Any) -> Iterator[tuple[bytes, Entry]]:
        """The records in the order of a table whose keys begin with a time. Any may be removed before the next."""
        cursor, row = txn.cursor(table), b""
        while cursor.set_range(row):
            # The least key after this one.
            row = bytes(cursor.key()) + b"\0"
            if entry := self.entry(txn, digest := row[_TIME.size : -1]):
                yield digest, entry

    def note_damage(self, txn: Transaction, digest: bytes, reason: str) -> None:
        """Note in quarantine why a record was removed. The oldest note is dropped when there are too many."""
        cursor = txn.cursor(self.quarantine)
        if txn.stat(self.quarantine)["entries"] >= MAX_QUARANTINE_NOTES and cursor.first():
            cursor.delete()
        txn.put(_TIME.pack(time.time_ns()) + digest, reason.encode()[:MAX_REASON_BYTES], db=self.quarantine)

    def _rows(self, txn: Transaction, table: Any) -> set[bytes]:
        """The keys of a table, as a walk over its leaves meets them."""
        return {bytes(row) for row in txn.cursor(table).iternext(values=False)}
