"""Two tiers as one store: a fast one that forgets soon above a large one that lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.store.base import CheckReport, Store, StoreStats
from kamera_agent.store.lmdb_store import LmdbStore


class TieredStore(Store):
    """Reads memory, then disk; what came from disk is kept in memory too. Writes go to both.

    The tiers belong to this store and close with it; each one's own figures are in `memory` and `disk`.
    """

    def __init__(self, memory: Store, disk: LmdbStore) -> None:
        self.memory = memory
        self.disk = disk
        self._lock = threading.Lock()
        self._num_changes = 0

    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        found = self.memory.get_many(keys)
        # Or what memory serves every day would be the first thing that the disk forgets.
        self.disk.use([record.header.key for record in found.values()])
        missing = [key for key in keys if key.digest not in found]
        if not missing:
            return found
        num_changes = self._num_changes
        from_disk = self.disk.get_many(missing)
        self._promote(from_disk.values(), num_changes)
        return found | from_disk

    def put_many(self, records: Iterable[Record]) -> None:
        for record in records:
            with self._lock:
                self._num_changes += 1
                self.disk.put_many([record])
                self.memory.put_many([record])

    def delete(self, keys: Sequence[Key]) -> None:
        with self._lock:
            self._num_changes += 1
            self.disk.delete(keys)
            self.memory.delete(keys)

    def headers(self, chunk: bytes | None = None) -> list[Header]:
        tiers = self.disk.headers(chunk), self.memory.headers(chunk)
        return list({header.key.digest: header for headers in tiers for header in headers}.values())

    def flush(self) -> None:
        self.disk.flush()
        self.memory.flush()

    def stats(self) -> StoreStats:
        """The disk's figures, with the hits and bytes read of both tiers.

        A key found in neither is one miss. What leaves memory still lies on disk, so only the disk's
        evictions, failed writes and sizes tell what the store lost and holds.
        """
        memory, disk = self.memory.stats(), self.disk.stats()
        return replace(disk, hits=memory.hits + disk.hits, bytes_read=memory.bytes_read + disk.bytes_read)

    def check(self) -> CheckReport:
        """The disk's report, with the problems of both tiers."""
        memory, disk = self.memory.check(), self.disk.check()
        return replace(disk, problems=disk.problems + memory.problems)

    def close(self) -> None:
        self.disk.close()
        self.memory.close()

    def _promote(self, records: Iterable[Record], num_changes: int) -> None:
        # Only a read that no put or delete overtook may fill memory, or it would bring back the old record.
        # Promotion is a favour, left out while a write holds the lock: reads never wait for the disk's queue.
        if self._lock.acquire(blocking=False):
            try:
                if num_changes == self._num_changes:
                    self.memory.put_many(records)
            finally:
                self._lock.release()
