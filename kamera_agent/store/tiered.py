"""Two tiers as one store: a fast one that forgets soon, over a large one that lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.forking import Forkable
from kamera_agent.store.base import CheckReport, Store, StoreStats


class TieredStore(Store, Forkable):
    """Reads the upper tier, then the lower one, and keeps in the upper what the lower one served. Writes go to both.

    upper: the fast tier. lower: the tier that lasts; its figures are those of the whole. Either may be any store.
    Both belong to this store and close with it.
    """

    def __init__(self, upper: Store, lower: Store) -> None:
        self.upper = upper
        self.lower = lower
        super().__init__()
        self._num_changes = 0

    def renew(self) -> None:
        self._lock = threading.Lock()

    @property
    def medium(self) -> object:
        """The lower tier's."""
        return self.lower.medium

    @property
    def is_encrypted(self) -> bool:
        """Whether the lower tier is."""
        return self.lower.is_encrypted

    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        records = self.upper.get_many(keys)
        # Otherwise the records that the upper tier serves most would be the first that the lower one evicts.
        self.lower.use([record.header.key for record in records.values()])
        missing = [key for key in keys if key.digest not in records]
        if not missing:
            return records
        num_changes = self._num_changes
        promoted = self.lower.get_many(missing)
        self._promote(promoted.values(), num_changes)
        return records | promoted

    def put_many(self, records: Iterable[Record]) -> None:
        for record in records:
            # Both tiers in one step: of two puts of one key, the same one must come last in both.
            with self._lock:
                self._num_changes += 1
                self.lower.put_many([record])
                self.upper.put_many([record])

    def delete(self, keys: Sequence[Key]) -> None:
        with self._lock:
            self._num_changes += 1
            self.lower.delete(keys)
            self.upper.delete(keys)

    def use(self, keys: Sequence[Key]) -> None:
        self.lower.use(keys)
        self.upper.use(keys)

    def expect(self, chunks: Sequence[bytes]) -> None:
        self.lower.expect(chunks)
        self.upper.expect(chunks)

    def headers(self, chunk: bytes | None = None) -> list[Header]:
        tiers = self.lower.headers(chunk), self.upper.headers(chunk)
        return list({header.key.digest: header for headers in tiers for header in headers}.values())

    def flush(self) -> None:
        self.lower.flush()
        self.upper.flush()

    def stats(self) -> StoreStats:
        """The lower tier's figures, with the hits and bytes read of both tiers.

        A key that neither holds is one miss. A record that leaves the upper tier is still in the lower one, so only
        the lower tier's evictions, failed writes and sizes are those of the store.
        """
        upper, lower = self.upper.stats(), self.lower.stats()
        return replace(lower, hits=upper.hits + lower.hits, bytes_read=upper.bytes_read + lower.bytes_read)

    def check(self) -> CheckReport:
        """The lower tier's report, with the problems of both tiers."""
        upper, lower = self.upper.check(), self.lower.check()
        return replace(lower, problems=lower.problems + upper.problems)

    def close(self) -> None:
        self.lower.close()
        self.upper.close()

    def _promote(self, records: Iterable[Record], num_changes: int) -> None:
        # A read that a put or delete overtook must not fill the upper tier: it would bring back the old record.
        # Promotion may be skipped, so a read does not wait for a write that holds the lock on a full queue. A lock that
        # is acquired by a call, not by a with statement, could stay taken after Ctrl-C.
        if not self._lock.locked():
            with self._lock:
                if num_changes == self._num_changes:
                    self.upper.put_many(records)
