"""The one writer of a store folder in this process."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

from kamera_agent.chunk import Record
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.capacity import batch_bytes
from kamera_agent.store.codec import encode
from kamera_agent.store.counters import Counters
from kamera_agent.store.entry import Entry
from kamera_agent.store.environment import Environment
from kamera_agent.store.quotas import set_quota_of
from kamera_agent.store.transaction import Transaction
from kamera_agent.store.write_queue import Batch, Intent, WriteQueue
from kamera_agent.trouble import Trouble

EVICTION_RECORDS = 1000
# LMDB reuses freed pages two commits later, so the third try is the first that can use the room made.
MAX_TRIES = 5

_log = logging.getLogger("kamera_agent.store")


class Writer:
    """The thread that writes: it takes batches from the queue, commits each as a whole, and evicts.

    A failure of the medium never leaves this thread: it is logged once, and the batch is counted in failed_writes.
    """

    def __init__(self, database: Environment, queue_bytes: int) -> None:
        self.database = database
        self.counters = Counters()
        # Never over: what is damaged stays so.
        self.damage = Trouble(_log, f"records of the store {database.path} are damaged and removed", "")
        self.queue = WriteQueue(queue_bytes, after=database.read(database.tables.last_tick) or 0)
        self._thread = threading.Thread(target=self._run, name="kamera-store-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the queue and close the database. Idempotent."""
        self.queue.close()
        self._thread.join()

    def resize(self, cap_bytes: int) -> None:
        """Set the cap, and evict down to it. Raises StoreUnavailableError when the medium fails."""
        self.database.write(partial(self.database.tables.set_cap, cap_bytes))
        self.evict(cap_bytes)

    def limit(self, quota_bytes: int | None, namespace: str | None) -> None:
        """Set the quota, or that of a namespace, and evict down to it.

        Raises StoreUnavailableError when the medium fails.
        """
        if namespace is None:
            self.database.write(partial(self.database.tables.set_quota, quota_bytes))
        else:
            set_quota_of(self.database, namespace, quota_bytes)
        self.evict(self.database.cap_bytes)

    def evict(self, max_bytes: int) -> None:
        """Remove the least worthy records above a size. Raises StoreUnavailableError when the medium fails."""
        tables = self.database.tables
        self._repeat(lambda txn: tables.evict(txn, max_bytes, max_records=EVICTION_RECORDS))

    def expire_unused(self, tick: int) -> None:
        """Remove records that were last used before a tick. Raises StoreUnavailableError when the medium fails."""
        self._repeat(lambda txn: self.database.tables.expire_unused(txn, tick, EVICTION_RECORDS))

    def expire_stored(self, moment: int) -> None:
        """Remove records that were stored before a moment. Raises StoreUnavailableError when the medium fails."""
        self._repeat(lambda txn: self.database.tables.expire_stored(txn, moment, EVICTION_RECORDS))

    def _repeat(self, remove_some: Callable[[Transaction], int]) -> None:
        # In small transactions, between which the writer and other processes get their turn.
        while removed := self.database.write(remove_some):
            self.counters.add({"evictions": removed})

    def _run(self) -> None:
        path = self.database.path
        trouble = Trouble(_log, f"the store {path} cannot be written; records are lost", f"the store {path} is written")
        while (batch := self.queue.take(batch_bytes(self.database.cap_bytes))) is not None:
            try:
                self.counters.add(self._commit(batch))
                trouble.worked()
            except Exception as error:  # noqa: BLE001 - the writer must live, or put_many() would block for ever
                trouble.failed(error)
                self.counters.add({"failed_writes": batch.num_puts})
            finally:
                self.queue.done()
        # Its users may be gone without closing it.
        self.database.close()

    def _commit(self, batch: Batch) -> Counter[str]:
        for num_tries in range(1, MAX_TRIES + 1):
            written = self.database.write(partial(self._apply, batch))
            if written is not None:
                return written
            evicted = self.database.write(partial(self._make_room, num_tries * batch.num_bytes))
            self.counters.add({"evictions": evicted or 0})
        raise StoreUnavailableError(f"{batch.num_bytes} bytes do not fit in its file")

    def _apply(self, batch: Batch, txn: Transaction) -> Counter[str]:
        tables, counts = self.database.tables, Counter[str]()
        for digest, intent in batch.intents.items():
            if intent.record is None:
                tables.remove(txn, digest)
            else:
                counts += self._put(txn, intent.record, intent)
            if intent.damage is not None:
                tables.note_damage(txn, digest, intent.damage)
        for digest, use in batch.uses.items():
            tables.use(txn, digest, use.tick, use.hits)
        # Not after removals alone: reading a store, which may find damage, never evicts.
        cap_bytes = tables.cap_bytes(txn)
        if batch.num_puts and cap_bytes is not None:
            counts["evictions"] += tables.expire_stored(txn, tables.expiry(txn), EVICTION_RECORDS)
            counts["evictions"] += tables.evict(txn, cap_bytes)
        return counts

    def _put(self, txn: Transaction, record: Record, intent: Intent) -> Counter[str]:
        tables, header = self.database.tables, record.header
        if header.base and tables.entry(txn, header.base) is None:
            tables.remove(txn, header.key.digest)
            return Counter(evictions=1)
        namespace = self.database.namespace_of(header, txn)
        entry = Entry(intent.tick, intent.num_bytes, intent.tick, intent.hits, namespace, header.chunk, header.base)
        encoded, cipher = encode(record), self.database.cipher
        if cipher is not None:
            encoded = cipher.encrypt(header.key.digest, encoded)
        tables.put(txn, header.key.digest, entry, encoded)
        return Counter(bytes_written=header.num_bytes)

    def _make_room(self, num_bytes: int, txn: Transaction) -> int:
        return self.database.tables.evict(txn, max(0, self.database.tables.held_bytes(txn) - num_bytes))
