"""The one writer of a store folder in this process."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from functools import partial

from kamera_agent.chunk import Record
from kamera_agent.config import MIB
from kamera_agent.store.capacity import record_bytes
from kamera_agent.store.codec import encode
from kamera_agent.store.counters import Counters
from kamera_agent.store.environment import Environment
from kamera_agent.store.tables import Entry, Transaction
from kamera_agent.store.write_queue import Batch, WriteQueue

BATCH_BYTES = 64 * MIB
EVICTION_RECORDS = 1000
# LMDB reuses freed pages two commits later, so the third try is the first that can use the room made.
MAX_TRIES = 5

_GONE = (
    "the store folder %s was deleted while it was open: nothing more is written to it. Open it again to start a new "
    "store there."
)

_log = logging.getLogger("kamera_agent.store")


class Writer:
    """The thread that writes: it takes batches from the queue, commits each as a whole, and evicts.

    A failure of the medium never leaves this thread: the batch is logged and counted in failed_writes.
    """

    def __init__(self, database: Environment, queue_bytes: int) -> None:
        self.database = database
        self.counters = Counters()
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
        # In small transactions, between which the writer and other processes get their turn.
        while evicted := self.database.write(partial(self._evict_some, cap_bytes)):
            self.counters.add({"evictions": evicted})

    def _run(self) -> None:
        said = False
        while (batch := self.queue.take(BATCH_BYTES)) is not None:
            if self.database.is_gone:
                if not said:
                    _log.warning(_GONE, self.database.path)
                said = True
                self.counters.add({"failed_writes": batch.num_puts})
                self.queue.done()
                continue
            try:
                self.counters.add(self._commit(batch))
            except Exception:  # noqa: BLE001 - after any error the writer must live, or put_many() would block for ever
                _log.warning("%d writes to the store %s failed", batch.num_puts, self.database.path, exc_info=True)
                self.counters.add({"failed_writes": batch.num_puts})
            finally:
                self.queue.done()
        # Its users may be gone without closing it.
        self.database.close()

    def _commit(self, batch: Batch) -> Counter[str]:
        counts: Counter[str] = Counter()
        for num_tries in range(1, MAX_TRIES + 1):
            written = self.database.write(partial(self._apply, batch))
            if written is not None:
                return counts + written
            evicted = self.database.write(partial(self._make_room, num_tries * batch.num_bytes))
            counts["evictions"] += evicted or 0
        _log.warning("%d writes do not fit in the map of the store %s", batch.num_puts, self.database.path)
        counts["failed_writes"] += batch.num_puts
        return counts

    def _apply(self, batch: Batch, txn: Transaction) -> Counter[str]:
        tables, counts = self.database.tables, Counter[str]()
        for digest, intent in batch.intents.items():
            if intent.record is None:
                tables.remove(txn, digest)
            else:
                counts += self._put(txn, intent.record, intent.tick)
            if intent.damage is not None:
                tables.note_damage(txn, digest, intent.damage)
        for digest, tick in batch.uses.items():
            tables.use(txn, digest, tick)
        # Not after removals alone: reading a store, which may find damage, never evicts.
        cap_bytes = tables.cap_bytes(txn)
        if batch.num_puts and cap_bytes is not None:
            counts["evictions"] += tables.evict(txn, cap_bytes)
        return counts

    def _put(self, txn: Transaction, record: Record, tick: int) -> Counter[str]:
        tables, header = self.database.tables, record.header
        if header.base and tables.entry(txn, header.base) is None:
            tables.remove(txn, header.key.digest)
            return Counter(evictions=1)
        entry = Entry(tick, record_bytes(header), header.chunk, header.base)
        tables.put(txn, header.key.digest, entry, encode(record))
        return Counter(bytes_written=header.num_bytes)

    def _evict_some(self, max_bytes: int, txn: Transaction) -> int:
        return self.database.tables.evict(txn, max_bytes, max_records=EVICTION_RECORDS)

    def _make_room(self, num_bytes: int, txn: Transaction) -> int:
        return self.database.tables.evict(txn, max(0, self.database.tables.held_bytes(txn) - num_bytes))
