"""The memory tier: the records themselves, evicted in order of last use; patches go with their base, as on disk."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.errors import StoreClosedError
from kamera_agent.forking import Forkable
from kamera_agent.store.base import CheckReport, Store, StoreStats
from kamera_agent.store.capacity import record_bytes, require_bytes
from kamera_agent.store.codec import are_equal
from kamera_agent.store.counters import Counters


class MemoryStore(Store, Forkable):
    """Keeps records in this process, by reference: it returns the very tensors that were put.

    cap_bytes: bound of the kept bytes; a record counts as its tensors, but at least 4 KiB.
    """

    def __init__(self, cap_bytes: int) -> None:
        self._cap_bytes = require_bytes("cap_bytes", cap_bytes)
        super().__init__()
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._held_bytes = 0
        self._counters = Counters()
        self._closed = False

    def renew(self) -> None:
        self._lock = threading.Lock()

    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        records: dict[bytes, Record] = {}
        with self._lock:
            self._require_open()
            for key in keys:
                record = self._records.get(key.digest)
                if record is not None and record.header.key.material == key.material:
                    self._use(record)
                    records[key.digest] = record
        num_bytes = sum(record.header.num_bytes for record in records.values())
        self._counters.add({"hits": len(records), "misses": len(set(keys)) - len(records), "bytes_read": num_bytes})
        return records

    def put_many(self, records: Iterable[Record]) -> None:
        for record in records:
            with self._lock:
                self._require_open()
                self._insert(record)

    def delete(self, keys: Sequence[Key]) -> None:
        with self._lock:
            self._require_open()
            for key in keys:
                self._remove(key.digest)

    def use(self, keys: Sequence[Key]) -> None:
        with self._lock:
            self._require_open()
            for key in keys:
                if record := self._records.get(key.digest):
                    self._use(record)

    def headers(self, chunk: bytes | None = None) -> list[Header]:
        with self._lock:
            self._require_open()
            headers = [record.header for record in self._records.values()]
        return [header for header in headers if chunk in (None, header.chunk)]

    def flush(self) -> None:
        with self._lock:
            self._require_open()

    def stats(self) -> StoreStats:
        with self._lock:
            self._require_open()
            num_records, held_bytes = len(self._records), self._held_bytes
        return StoreStats(num_records, held_bytes, self._cap_bytes, **self._counters.snapshot())

    def check(self) -> CheckReport:
        """The sizes. Memory does not decay, so there are never problems."""
        with self._lock:
            self._require_open()
            return CheckReport(len(self._records), self._held_bytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._records.clear()
            self._held_bytes = 0

    def _require_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the memory store was closed; open a new one.")

    def _insert(self, record: Record) -> None:
        digest, num_bytes, base = record.header.key.digest, record_bytes(record.header), record.header.base
        stored = self._records.get(digest)
        if stored and are_equal(stored, record):
            self._use(stored)
            return
        self._remove(digest)
        if num_bytes > self._cap_bytes:
            self._counters.add({"failed_writes": 1})
            return
        if base and base not in self._records:
            self._counters.add({"evictions": 1})
            return
        # Here and below without a call between the two, so that Ctrl-C comes before or after both.
        self._records[digest] = record
        self._held_bytes += num_bytes
        self._use(record)
        self._counters.add({"bytes_written": record.header.num_bytes})
        num_records = len(self._records)
        while self._held_bytes > self._cap_bytes:
            self._remove(next(iter(self._records)))
        self._counters.add({"evictions": num_records - len(self._records)})

    def _use(self, record: Record) -> None:
        self._records.move_to_end(record.header.key.digest)
        if record.header.base:
            self._records.move_to_end(record.header.base)

    def _remove(self, digest: bytes) -> None:
        record = self._records.get(digest)
        if record is None:
            return
        if record.header.kind == "base":
            for patch in [other for other in self._records.values() if other.header.base == digest]:
                self._remove(patch.header.key.digest)
        num_bytes = record_bytes(record.header)
        del self._records[digest]
        self._held_bytes -= num_bytes
