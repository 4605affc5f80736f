"""The entry of a record: what eviction and removal need to know of it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from kamera_agent.errors import CorruptRecordError

DIGEST_BYTES = 32
NAME_BYTES = 16


class Entry(NamedTuple):
    """The facts about a record that eviction and removal need, even when its header is damaged.

    tick: the last use, in ns since 1970; a put is one. put_ns: when the content was first written. hits: uses since
    then. namespace: 16 bytes that stand for its name.
    """

    tick: int
    num_bytes: int
    put_ns: int
    hits: int
    namespace: bytes
    chunk: bytes
    base: bytes | None

    def pack(self) -> bytes:
        """The entry as stored."""
        numbers = self.tick, self.num_bytes, self.put_ns, self.hits
        return _ENTRY.pack(*numbers, self.namespace, self.chunk) + (self.base or b"")

    @classmethod
    def unpack(cls, packed: memoryview) -> Entry:
        """The entry that was packed. Raises CorruptRecordError."""
        if len(packed) not in (_ENTRY.size, _ENTRY.size + DIGEST_BYTES):
            raise CorruptRecordError(f"an entry is {len(packed)} bytes long")
        tick, num_bytes, put_ns, hits, namespace, chunk = _ENTRY.unpack_from(packed)
        return cls(tick, num_bytes, put_ns, hits, namespace, chunk, bytes(packed[_ENTRY.size :]) or None)


_ENTRY = struct.Struct(">QQQQ16s32s")
