"""The tables of the database, and the changes that keep them consistent.

headers     digest -> header bytes
values      digest, number (4 bytes) -> value bytes
entries     digest -> Entry: last use, bytes counted, time of the put, number of uses, chunk, base of a patch
uses        tick (8 bytes), digest -> nothing        the least recently used record comes first
chunks      chunk, digest -> nothing                 the records of one chunk
patches     base, digest -> nothing                  the patches over one base
totals      "bytes" -> sum of the bytes counted      written in the transaction that changes it
            "cap" -> the most that it may be         chosen by whoever made the store
            "key" -> what tells its key              of an encrypted store
            "policy" -> name                         what is evicted first; without it, what was used longest ago
            "pin", chunk -> nothing                  chunks that are evicted after all others
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
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

from kamera_agent.config import Policy
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.codec import Encoded
from kamera_agent.store.entry import DIGEST_BYTES, Entry
from kamera_agent.store.eviction import POLICIES, order

MAX_QUARANTINE_NOTES = 1000
MAX_REASON_BYTES = 1000
TOTAL_BYTES, CAP_BYTES, KEY_CHECK, POLICY, PIN = b"bytes", b"cap", b"key", b"policy", b"pin"


class Transaction(Protocol):
    """The calls that the store makes on an LMDB transaction. Returned buffers are valid until it ends."""

    def get(self, key: bytes, default: None = None, db: Any = None) -> memoryview | None: ...
    def put(self, key: bytes, value: Any, *, overwrite: bool = True, db: Any = None) -> bool: ...
    def delete(self, key: bytes, *, db: Any = None) -> bool: ...
    def cursor(self, db: Any = None) -> Any: ...
    def stat(self, db: Any = None) -> Any: ...


_TICK = struct.Struct(">Q")
_NUMBER = struct.Struct(">I")
_TOTAL = struct.Struct(">q")
_CAP = struct.Struct(">Q")


def _number(form: struct.Struct, packed: memoryview) -> int:
    if len(packed) != form.size:
        raise CorruptRecordError(f"a number is {len(packed)} bytes long")
    return int(form.unpack(packed)[0])


def _is_total(row: bytes) -> bool:
    """Whether a key of the table of totals is one that is written."""
    is_pin = row.startswith(PIN) and len(row) == len(PIN) + DIGEST_BYTES
    return is_pin or row in (TOTAL_BYTES, CAP_BYTES, KEY_CHECK, POLICY)


@dataclass(slots=True)
class Tables:
    """Handles of the tables, which change when the database is opened again. The names are those in the database."""

    headers: Any
    values: Any
    entries: Any
    uses: Any
    chunks: Any
    patches: Any
    totals: Any
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
        return [key[DIGEST_BYTES:] for key in self._keys(txn, self.chunks, chunk)]

    def patches_over(self, txn: Transaction, digest: bytes) -> list[bytes]:
        """Digests of the patches over a base."""
        return [key[DIGEST_BYTES:] for key in self._keys(txn, self.patches, digest)]

    def num_records(self, txn: Transaction) -> int:
        """Number of stored records."""
        return int(txn.stat(self.entries)["entries"])

    def held_bytes(self, txn: Transaction) -> int:
        """Bytes counted against the cap."""
        packed = txn.get(TOTAL_BYTES, db=self.totals)
        return 0 if packed is None else _number(_TOTAL, packed)

    def cap_bytes(self, txn: Transaction) -> int | None:
        """The cap; None in a store that was just made."""
        packed = txn.get(CAP_BYTES, db=self.totals)
        if packed is None:
            return None
        # Twice, because nothing else would show that it is damaged.
        cap_bytes, again = (_number(_CAP, half) for half in (packed[: _CAP.size], packed[_CAP.size :]))
        if cap_bytes != again:
            raise CorruptRecordError(f"the cap is {cap_bytes} or {again} bytes")
        return cap_bytes

    def key_check(self, txn: Transaction) -> bytes | None:
        """What tells the key of an encrypted store; None in another one."""
        packed = txn.get(KEY_CHECK, db=self.totals)
        if packed is None:
            return None
        half = len(packed) // 2
        if packed[:half] != packed[half:]:
            raise CorruptRecordError("what tells the key of the store is damaged")
        return bytes(packed[:half])

    def claim(self, cap_bytes: int, key_check: bytes | None, txn: Transaction) -> int:
        """Set the cap and the key of a store that has no cap. Returns the cap."""
        if txn.put(CAP_BYTES, 2 * _CAP.pack(cap_bytes), db=self.totals, overwrite=False) and key_check is not None:
            txn.put(KEY_CHECK, 2 * key_check, db=self.totals)
        return self.cap_bytes(txn) or 0

    def set_cap(self, cap_bytes: int, txn: Transaction) -> None:
        """Set the cap. Evicts nothing."""
        txn.put(CAP_BYTES, 2 * _CAP.pack(cap_bytes), db=self.totals)

    def policy(self, txn: Transaction) -> Policy:
        """What is evicted first; "lru" for a policy that this version does not know."""
        packed = txn.get(POLICY, db=self.totals)
        name = "lru" if packed is None else bytes(packed).decode("ascii", "replace")
        return next((policy for policy in POLICIES if policy == name), "lru")

    def set_policy(self, policy: Policy, txn: Transaction) -> None:
        """Choose what is evicted first."""
        txn.put(POLICY, policy.encode(), db=self.totals)

    def pins(self, txn: Transaction) -> set[bytes]:
        """Digests of the chunks that are pinned."""
        return {key[len(PIN) :] for key in self._keys(txn, self.totals, PIN)}

    def pin(self, chunk: bytes, txn: Transaction) -> None:
        """Pin a chunk, whether or not it has records."""
        txn.put(PIN + chunk, b"", db=self.totals)

    def unpin(self, chunk: bytes, txn: Transaction) -> None:
        """Take a pin away. A chunk that is not pinned is ignored."""
        txn.delete(PIN + chunk, db=self.totals)

    def last_tick(self, txn: Transaction) -> int:
        """Tick of the last use of any record; 0 in an empty database."""
        cursor = txn.cursor(self.uses)
        return _number(_TICK, cursor.key()[: _TICK.size]) if cursor.last() else 0

    def problems(self, txn: Transaction) -> list[str]:
        """The contradictions between the tables. Raises CorruptRecordError."""
        entries = self.all_entries(txn)
        entry_bytes = sum(entry.num_bytes for entry in entries.values())
        held_bytes, problems = self.held_bytes(txn), []
        self.cap_bytes(txn)
        self.key_check(txn)
        if entry_bytes != held_bytes:
            problems.append(f"the total is {held_bytes} bytes, but the records add up to {entry_bytes}")
        for name, table, expected in (
            ("headers", self.headers, entries.keys()),
            ("uses", self.uses, {_TICK.pack(entry.tick) + digest for digest, entry in entries.items()}),
            ("chunks", self.chunks, {entry.chunk + digest for digest, entry in entries.items()}),
            ("patches", self.patches, {entry.base + digest for digest, entry in entries.items() if entry.base}),
        ):
            if (rows := self._rows(txn, table)) != expected:
                num_lacking, num_more = len(expected - rows), len(rows - expected)
                problems.append(f"table {name} lacks {num_lacking} rows of {len(expected)}, and has {num_more} more")
        if num_more := sum(row[:DIGEST_BYTES] not in entries for row in self._rows(txn, self.values)):
            problems.append(f"table values has {num_more} rows of no record")
        if num_unknown := sum(not _is_total(row) for row in self._rows(txn, self.totals)):
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
        if stored is not None and bytes(stored) == encoded.header:
            if known := self.entry(txn, digest):
                entry = entry._replace(put_ns=known.put_ns, hits=known.hits + entry.hits)
            self._remove_alone(txn, digest)
        else:
            self.remove(txn, digest)
        for number, value in enumerate(encoded.values):
            txn.put(digest + _NUMBER.pack(number), value.data, db=self.values)
        txn.put(digest, encoded.header, db=self.headers)
        txn.put(digest, entry.pack(), db=self.entries)
        txn.put(_TICK.pack(entry.tick) + digest, b"", db=self.uses)
        txn.put(entry.chunk + digest, b"", db=self.chunks)
        self._add_bytes(txn, entry.num_bytes)
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
        for key in list(self._keys(txn, self.values, digest)):
            txn.delete(key, db=self.values)
        txn.delete(digest, db=self.headers)
        txn.delete(digest, db=self.entries)
        txn.delete(_TICK.pack(entry.tick) + digest, db=self.uses)
        txn.delete(entry.chunk + digest, db=self.chunks)
        if entry.base:
            txn.delete(entry.base + digest, db=self.patches)
        self._add_bytes(txn, -entry.num_bytes)

    def use(self, txn: Transaction, digest: bytes, tick: int, hits: int = 0) -> None:
        """Set the last use of a record, unless a later one is known, and that of its base to a tick later.

        hits: uses to count, for this record alone. An unknown digest is ignored.
        """
        entry = self.entry(txn, digest)
        if entry is None:
            return
        used = entry._replace(tick=max(entry.tick, tick), hits=entry.hits + hits)
        txn.delete(_TICK.pack(entry.tick) + digest, db=self.uses)
        txn.put(_TICK.pack(used.tick) + digest, b"", db=self.uses)
        txn.put(digest, used.pack(), db=self.entries)
        if entry.base and entry.tick < tick:
            self.use(txn, entry.base, tick + 1)

    def evict(self, txn: Transaction, max_bytes: int, max_records: int | None = None) -> int:
        """Remove records by the policy of the store until at most max_bytes are left. Returns their number.

        Those of pinned chunks go when no others are left. max_records: leave the rest for another transaction once so
        many are removed.
        """
        num_records = self.num_records(txn)
        if self.held_bytes(txn) <= max_bytes:
            return 0
        for digest in self._by_worth(txn):
            done = num_records - self.num_records(txn)
            if self.held_bytes(txn) <= max_bytes or (max_records is not None and done >= max_records):
                break
            self.remove(txn, digest)
        return num_records - self.num_records(txn)

    def _by_worth(self, txn: Transaction) -> Iterator[bytes]:
        """The records in the order in which they are evicted. What was given may be removed before the next."""
        policy, pins = self.policy(txn), self.pins(txn)
        if policy != "lru":
            yield from order(self.all_entries(txn), policy, pins, time.time_ns())
            return
        # Without reading them all: the table has them in order.
        for kept in (pins, set[bytes]()):
            while digest := self._least_used(txn, kept):
                yield digest

    def expire(self, txn: Transaction, tick: int, max_records: int) -> int:
        """Remove records that were last used before a tick, up to about max_records. Returns their number.

        Those of pinned chunks stay.
        """
        num_records, pins = self.num_records(txn), self.pins(txn)
        while num_records - self.num_records(txn) < max_records:
            digest = self._least_used(txn, pins, before=tick)
            if digest is None:
                break
            self.remove(txn, digest)
        return num_records - self.num_records(txn)

    def _least_used(self, txn: Transaction, pins: set[bytes], before: int | None = None) -> bytes | None:
        """The record that was least recently used, of all whose chunk is not pinned; None where there is none.

        before: a tick that it was last used before.
        """
        cursor = txn.cursor(self.uses)
        has_row = cursor.first()
        while has_row:
            row = bytes(cursor.key())
            if before is not None and _number(_TICK, memoryview(row)[: _TICK.size]) >= before:
                return None
            digest = row[_TICK.size :]
            if not pins or (entry := self.entry(txn, digest)) is None or entry.chunk not in pins:
                return digest
            has_row = cursor.next()
        return None

    def note_damage(self, txn: Transaction, digest: bytes, reason: str) -> None:
        """Note in quarantine why a record was removed. The oldest note is dropped when there are too many."""
        cursor = txn.cursor(self.quarantine)
        if txn.stat(self.quarantine)["entries"] >= MAX_QUARANTINE_NOTES and cursor.first():
            cursor.delete()
        txn.put(_TICK.pack(time.time_ns()) + digest, reason.encode()[:MAX_REASON_BYTES], db=self.quarantine)

    def _add_bytes(self, txn: Transaction, num_bytes: int) -> None:
        txn.put(TOTAL_BYTES, _TOTAL.pack(self.held_bytes(txn) + num_bytes), db=self.totals)

    def _rows(self, txn: Transaction, table: Any) -> set[bytes]:
        """The keys of a table, as a walk over its leaves meets them."""
        return {bytes(row) for row in txn.cursor(table).iternext(values=False)}

    def _keys(self, txn: Transaction, table: Any, prefix: bytes) -> Iterator[bytes]:
        cursor = txn.cursor(table)
        has_row = cursor.set_range(prefix)
        while has_row and (key := bytes(cursor.key())).startswith(prefix):
            yield key
            has_row = cursor.next()
