"""The table of totals: what the records of a store add up to, and what was agreed for all processes that use it.

"bytes"          sum of the bytes counted            written in the transaction that changes it, like the next
"held", name     the same, of one namespace
"cap"            the most that "bytes" may be        chosen by whoever made the store
"quota"          the most that each "held" may be    without it, the cap
"quota", name    the same, of one namespace          without it, that of all; and what names it: see quotas.py
"ttl"            seconds that a record is kept       without it, until it is evicted
"policy"         what is evicted first               without it, what was used longest ago
"pin", chunk     a chunk that is evicted after all others
"key"            what tells the key of an encrypted store
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Any

from kamera_agent.config import Policy
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.entry import DIGEST_BYTES, NAME_BYTES
from kamera_agent.store.eviction import POLICIES
from kamera_agent.store.transaction import Transaction, rows_after, unpack_number

TOTAL_BYTES, CAP_BYTES, QUOTA, TTL, KEY_CHECK, POLICY = b"bytes", b"cap", b"quota", b"ttl", b"key", b"policy"
HELD, PIN = b"held", b"pin"
LENGTHS = {HELD: len(HELD) + NAME_BYTES, QUOTA: len(QUOTA) + NAME_BYTES, PIN: len(PIN) + DIGEST_BYTES}
_TOTAL = struct.Struct(">q")
_AGREED = struct.Struct(">Q")


@dataclass(slots=True)
class Totals:
    """Queries and changes of the table. Every method runs inside the transaction it is given.

    totals: handle of the table.
    """

    totals: Any

    def held_bytes(self, txn: Transaction, namespace: bytes | None = None) -> int:
        """Bytes that all records count against the cap, or those of one namespace against the quota."""
        packed = txn.get(_sum(namespace), db=self.totals)
        return 0 if packed is None else unpack_number(_TOTAL, packed)

    def held_by_namespace(self, txn: Transaction) -> dict[bytes, int]:
        """Of each namespace that holds anything, the bytes."""
        names = [row[len(HELD) :] for row in rows_after(txn, self.totals, HELD)]
        return {name: self.held_bytes(txn, name) for name in names}

    def add_bytes(self, txn: Transaction, namespace: bytes, num_bytes: int) -> None:
        """Count the bytes of a record of a namespace, which are negative when it goes."""
        for row, held in ((_sum(name), self.held_bytes(txn, name)) for name in (None, namespace)):
            if held + num_bytes or row == TOTAL_BYTES:
                txn.put(row, _TOTAL.pack(held + num_bytes), db=self.totals)
            else:
                txn.delete(row, db=self.totals)

    def cap_bytes(self, txn: Transaction) -> int | None:
        """The cap; None in a store that was just made."""
        return self._agreed(txn, CAP_BYTES)

    def set_cap(self, cap_bytes: int, txn: Transaction) -> None:
        """Set the cap. Evicts nothing."""
        self._agree(txn, CAP_BYTES, cap_bytes)

    def quota_bytes(self, txn: Transaction, namespace: bytes = b"") -> int | None:
        """The most that a namespace may hold, or each that has no quota of its own; None for the cap."""
        own = self._agreed(txn, QUOTA + namespace)
        return self._agreed(txn, QUOTA) if own is None else own

    def set_quota(self, quota_bytes: int | None, txn: Transaction, namespace: bytes = b"", label: bytes = b"") -> None:
        """Set the most that each namespace may hold, or one, or take it back. label: what names it. Evicts nothing."""
        self._agree(txn, QUOTA + namespace, quota_bytes, label)

    def own_quotas(self, txn: Transaction) -> dict[bytes, tuple[bytes, int]]:
        """Of each namespace that has a quota of its own, what names it, and the quota."""
        rows = [row for row in rows_after(txn, self.totals, QUOTA) if row != QUOTA]
        packed = {row: bytes(txn.get(row, db=self.totals) or b"") for row in rows}
        return {row[len(QUOTA) :]: (packed[row][2 * _AGREED.size :], _number(row, packed[row])) for row in rows}

    def record_bound(self, namespace: bytes, txn: Transaction) -> int:
        """The most that one record of a namespace may take: the cap, or the quota where that is less."""
        bounds = (self.cap_bytes(txn) or 0, self.quota_bytes(txn, namespace))
        return min(bound for bound in bounds if bound is not None)

    def ttl_s(self, txn: Transaction) -> int | None:
        """Seconds that a record is kept; None for as long as there is room."""
        return self._agreed(txn, TTL)

    def set_ttl(self, ttl_s: int | None, txn: Transaction) -> None:
        """Set how long a record is kept, or take it back. Removes nothing."""
        self._agree(txn, TTL, ttl_s)

    def expiry(self, txn: Transaction) -> int:
        """What was stored before this time has expired, in ns since 1970; 0 where records are kept for any time."""
        ttl_s = self.ttl_s(txn)
        return 0 if ttl_s is None else max(0, time.time_ns() - ttl_s * 10**9)

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
        held = self.cap_bytes(txn)
        if held is not None:
            return held
        self.set_cap(cap_bytes, txn)
        if key_check is not None:
            txn.put(KEY_CHECK, 2 * key_check, db=self.totals)
        return cap_bytes

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
        return {row[len(PIN) :] for row in rows_after(txn, self.totals, PIN)}

    def pin(self, chunk: bytes, txn: Transaction) -> None:
        """Pin a chunk, whether or not it has records."""
        txn.put(PIN + chunk, b"", db=self.totals)

    def unpin(self, chunk: bytes, txn: Transaction) -> None:
        """Take a pin away. A chunk that is not pinned is ignored."""
        txn.delete(PIN + chunk, db=self.totals)

    def require_agreements(self, txn: Transaction) -> None:
        """Raise CorruptRecordError where something that was agreed is damaged."""
        for row in (CAP_BYTES, QUOTA, TTL):
            self._agreed(txn, row)
        self.own_quotas(txn)
        self.key_check(txn)

    def _agreed(self, txn: Transaction, row: bytes) -> int | None:
        packed = txn.get(row, db=self.totals)
        return None if packed is None else _number(row, packed)

    def _agree(self, txn: Transaction, row: bytes, number: int | None, label: bytes = b"") -> None:
        if number is None:
            txn.delete(row, db=self.totals)
        else:
            # Twice, because nothing else would show that it is damaged.
            txn.put(row, 2 * _AGREED.pack(number) + label, db=self.totals)


def _number(row: bytes, packed: memoryview | bytes) -> int:
    """The number of a row that was agreed. Raises CorruptRecordError."""
    size = _AGREED.size
    first, again = (unpack_number(_AGREED, half) for half in (packed[:size], packed[size : 2 * size]))
    if first != again:
        raise CorruptRecordError(f"the {row[:5].decode()} is {first} or {again}")
    return first


def _sum(namespace: bytes | None) -> bytes:
    return TOTAL_BYTES if namespace is None else HELD + namespace


def is_total(row: bytes) -> bool:
    """Whether a key of the table of totals is one that is written."""
    known = any(row.startswith(name) and len(row) == length for name, length in LENGTHS.items())
    return known or row in (TOTAL_BYTES, CAP_BYTES, QUOTA, TTL, KEY_CHECK, POLICY)
