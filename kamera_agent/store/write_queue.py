"""The queue of writes: bounded in bytes, and visible to readers."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from kamera_agent.chunk import Record
from kamera_agent.errors import StoreClosedError
from kamera_agent.store.capacity import record_bytes
from kamera_agent.store.codec import are_equal


class Intent(NamedTuple):
    """A write of one record.

    record: the record to put, or None to remove the stored one.
    tick: the time of the last use; at first that of the request. hits: uses since the request.
    damage: of a removal, the reason to note in quarantine; None for a plain removal.
    """

    record: Record | None
    tick: int
    hits: int = 0
    damage: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes that the intent takes in the queue."""
        return 0 if self.record is None else record_bytes(self.record.header)


class Use(NamedTuple):
    """The uses of a stored record: the tick of the last one, and their number."""

    tick: int
    hits: int


class Batch(NamedTuple):
    """The writes of one transaction: intents by digest, and the uses of other records by digest."""

    intents: dict[bytes, Intent]
    uses: dict[bytes, Use]

    @property
    def num_bytes(self) -> int:
        """Bytes of the records to put."""
        return sum(intent.num_bytes for intent in self.intents.values())

    @property
    def num_puts(self) -> int:
        """Number of records to put."""
        return sum(intent.record is not None for intent in self.intents.values())


class WriteQueue:
    """The newest intent per digest, in order of first arrival, until the writer has committed it or failed.

    waiting: not taken yet. A newer intent for the same digest replaces the older one, in its place; a patch at the end.
    writing: taken by the writer, not yet committed. For readers, waiting hides writing, and writing hides the medium.

    cap_bytes: bound of waiting and writing together. A larger record is accepted when the queue is empty.
    after: all ticks are larger than this one.
    """

    def __init__(self, cap_bytes: int, after: int) -> None:
        self._cap_bytes = cap_bytes
        self._tick = after
        # Entered by itself, not through the condition, whose methods Ctrl-C could interrupt with the lock taken.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: dict[bytes, Intent] = {}
        self._writing: dict[bytes, Intent] = {}
        self._uses: dict[bytes, Use] = {}
        self._held_bytes = 0
        self._num_accepted = 0
        self._num_done = 0
        self._closed = False

    def put(self, record: Record) -> None:
        """Queue a record to be written. Waits while the queue is full. Patches that wait over another base are removed.

        So are those over none. Raises StoreClosedError after close().
        """
        num_bytes = record_bytes(record.header)
        with self._lock:
            self._changed.wait_for(lambda: self._closed or self._has_room(num_bytes))
            digest, replaced = record.header.key.digest, self._find(record.header.key.digest)
            self._accept(digest, Intent(record, self._next_tick()))
            # Patches that wait since a removal are over nothing; this base takes the place of the removal, before them.
            if replaced and not (replaced.record and are_equal(replaced.record, record)):
                self._remove_patches(digest)

    def remove(self, digest: bytes) -> None:
        """Queue the removal of the stored record. Patches over it that wait are removed.

        Raises StoreClosedError after close().
        """
        with self._lock:
            self._accept(digest, Intent(None, self._next_tick()))
            self._remove_patches(digest)

    def quarantine(self, digest: bytes, damage: str) -> bool:
        """Queue the removal of a damaged record, with a note. Raises StoreClosedError after close().

        Returns False, and queues nothing, when another intent is going to replace or remove the record anyway.
        """
        with self._lock:
            if self._find(digest) is not None:
                return False
            self._accept(digest, Intent(None, self._next_tick(), damage=damage))
            return True

    def find(self, digest: bytes) -> Intent | None:
        """The newest intent for a digest that is not yet committed, if any."""
        with self._lock:
            return self._find(digest)

    def pending(self) -> dict[bytes, Intent]:
        """All intents that are not yet committed, the newest per digest."""
        with self._lock:
            return self._writing | self._waiting

    def use(self, digest: bytes) -> None:
        """Note that the record is used now."""
        with self._lock:
            waiting = self._waiting.get(digest)
            if waiting is None:
                hits = self._uses[digest].hits if digest in self._uses else 0
                self._uses[digest] = Use(self._next_tick(), hits + 1)
            else:
                self._waiting[digest] = waiting._replace(tick=self._next_tick(), hits=waiting.hits + 1)

    def take(self, max_bytes: int) -> Batch | None:
        """The writer's next batch: at least one intent, and more up to max_bytes. Waits for work.

        None when the queue is closed and empty. The batch stays visible to readers until done().
        """
        with self._lock:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting and not self._uses:
                return None
            taken_bytes = 0
            for digest, intent in list(self._waiting.items()):
                taken_bytes += intent.num_bytes
                if self._writing and taken_bytes > max_bytes:
                    break
                self._writing[digest] = self._waiting.pop(digest)
            uses, self._uses = self._uses, {}
            return Batch(dict(self._writing), uses)

    def done(self) -> None:
        """Drop the batch that the writer took, because it is committed or counted as failed."""
        with self._lock:
            self._held_bytes -= sum(intent.num_bytes for intent in self._writing.values())
            self._num_done += len(self._writing)
            self._writing.clear()
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until the writer is done with every intent accepted so far."""
        with self._lock:
            target = self._num_accepted
            self._changed.wait_for(lambda: self._num_done >= target)

    def close(self) -> None:
        """Accept no more intents. The writer still gets the accepted ones."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, num_bytes: int) -> bool:
        return self._held_bytes == 0 or self._held_bytes + num_bytes <= self._cap_bytes

    def _find(self, digest: bytes) -> Intent | None:
        return self._waiting.get(digest) or self._writing.get(digest)

    def _remove_patches(self, base: bytes) -> None:
        for digest, intent in (self._writing | self._waiting).items():
            if intent.record and intent.record.header.base == base:
                self._accept(digest, Intent(None, self._next_tick()))

    def _accept(self, digest: bytes, intent: Intent) -> None:
        if self._closed:
            raise StoreClosedError("the store was closed before it could take a write; open it again.")
        waiting, replaced = self._waiting, self._waiting.get(digest)
        num_bytes = intent.num_bytes - (replaced.num_bytes if replaced else 0)
        if replaced and intent.record and intent.record.header.base:
            # Its base may have come after the replaced one, and must be written before it.
            waiting = {other: each for other, each in waiting.items() if other != digest}
        # Without a call between them, so that Ctrl-C comes before or after all of them.
        waiting[digest] = intent
        self._waiting = waiting
        self._num_accepted += replaced is None
        self._held_bytes += num_bytes
        self._uses.pop(digest, None)
        self._changed.notify_all()

    def _next_tick(self) -> int:
        # Wall time orders the uses of several processes. The maximum makes every tick of this process new, and leaves
        # the one after it to the base of a patch.
        self._tick = max(time.time_ns(), self._tick + 2)
        return self._tick
