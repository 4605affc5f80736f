"""A transaction of LMDB, and reading rows in it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Protocol

from kamera_agent.errors import CorruptRecordError


class Transaction(Protocol):
    """The calls that the store makes on an LMDB transaction. Returned buffers are valid until it ends."""

    def get(self, key: bytes, default: None = None, db: Any = None) -> memoryview | None: ...
    def put(self, key: bytes, value: Any, *, overwrite: bool = True, db: Any = None) -> bool: ...
    def delete(self, key: bytes, *, db: Any = None) -> bool: ...
    def cursor(self, db: Any = None) -> Any: ...
    def stat(self, db: Any = None) -> Any: ...


def rows_after(txn: Transaction, table: Any, prefix: bytes) -> Iterator[bytes]:
    """The keys of a table that begin with a prefix, in order. The table must not change meanwhile."""
    cursor = txn.cursor(table)
    has_row = cursor.set_range(prefix)
    while has_row and (row := bytes(cursor.key())).startswith(prefix):
        yield row
        has_row = cursor.next()


def unpack_number(form: struct.Struct, packed: memoryview | bytes) -> int:
    """The number that was packed. Raises CorruptRecordError."""
    if len(packed) != form.size:
        raise CorruptRecordError(f"a number is {len(packed)} bytes long")
    return int(form.unpack(packed)[0])
