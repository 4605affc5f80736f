"""What is to be written: a queue bounded in bytes that readers can look into."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from kamera_agent.chunk import Record
from kamera_agent.errors import StoreClosedError
from kamera_agent.store.capacity import record_bytes


class Intent(NamedTuple):
    """What is to become of one record.

    record: put this, or None: remove what is stored.
    tick: when it was asked for.
    damage: for a removal, why the stored record goes to quarantine; None for a plain removal.
    """

    record: Record | None
    tick: int
    damage: str | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes it takes up in the queue."""
        return 0 if self.record is None else record_bytes(self.record.header)


class Batch(NamedTuple):
    """What one transaction writes: intents by digest, and the tick of the last read of other records."""

    intents: dict[bytes, Intent]
    uses: dict[bytes, int]

    @property
    def num_bytes(self) -> int:
        """Bytes of the records to put."""
        return sum(intent.num_bytes for intent in self.intents.values())

    @property
    def num_puts(self) -> int:
        """Number of records to put."""
        return sum(intent.record is not None for intent in self.intents.values())


class WriteQueue:
    """The newest intent per digest, in order of first arrival, until the one writer has dealt with it.

    waiting: not taken yet; a newer intent for the digest replaces the older one in its place.
    writing: taken by the writer, not yet committed. Readers see waiting over writing over the medium.

    cap_bytes: bound of waiting and writing together. A larger record is let in when nothing else is there.
    after: every tick handed out is larger than this one.
    """

    def __init__(self, cap_bytes: int, after: int) -> None:
        self._cap_bytes = cap_bytes
        self._tick = after
        self._changed = threading.Condition()
        self._waiting: dict[bytes, Intent] = {}
        self._writing: dict[bytes, Intent] = {}
        self._uses: dict[bytes, int] = {}
        self._held_bytes = 0
        self._num_accepted = 0
        self._num_done = 0
        self._closed = False

    def put(self, record: Record) -> None:
        """Ask for the record to be written. Waits while the queue is full.

        Raises StoreClosedError after close().
        """
        num_bytes = record_bytes(record.header)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(num_bytes))
            self._accept(record.header.key.digest, Intent(record, self._next_tick()))

    def remove(self, digest: bytes) -> None:
        """Ask for the stored record to be removed. Raises StoreClosedError after close()."""
        with self._changed:
            self._accept(digest, Intent(None, self._next_tick()))

    def quarantine(self, digest: bytes, damage: str) -> bool:
        """Ask for a damaged record to be removed and noted.

        False, and nothing asked, when another intent settles its fate anyway. Raises StoreClosedError after
        close().
        """
        with self._changed:
            if self._find(digest) is not None:
                return False
            self._accept(digest, Intent(None, self._next_tick(), damage))
            return True

    def find(self, digest: bytes) -> Intent | None:
        """The newest intent that is not yet committed."""
        with self._changed:
            return self._find(digest)

    def pending(self) -> dict[bytes, Intent]:
        """Every intent not yet committed, the newest per digest."""
        with self._changed:
            return self._writing | self._waiting

    def use(self, digest: bytes) -> None:
        """Remember that the record was read just now."""
        with self._changed:
            waiting = self._waiting.get(digest)
            if waiting is None:
                self._uses[digest] = self._next_tick()
            else:
                self._waiting[digest] = waiting._replace(tick=self._next_tick())

    def take(self, max_bytes: int) -> Batch | None:
        """Hand the writer its next batch: at least one intent, more up to max_bytes. Waits for work.

        None once the queue is closed and everything was taken. The batch stays visible until done().
        """
        with self._changed:
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
        """The writer has dealt with its batch: committed it, or counted it as failed."""
        with self._changed:
            self._held_bytes -= sum(intent.num_bytes for intent in self._writing.values())
            self._num_done += len(self._writing)
            self._writing.clear()
            self._changed.notify_all()

    def drain(self) -> None:
        """Return once the writer has dealt with every intent accepted so far."""
        with self._changed:
            target = self._num_accepted
            self._changed.wait_for(lambda: self._num_done >= target)

    def close(self) -> None:
        """Accept nothing more; what was accepted is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self, num_bytes: int) -> bool:
        return self._held_bytes == 0 or self._held_bytes + num_bytes <= self._cap_bytes

    def _find(self, digest: bytes) -> Intent | None:
        return self._waiting.get(digest) or self._writing.get(digest)

    def _accept(self, digest: bytes, intent: Intent) -> None:
        if self._closed:
            raise StoreClosedError("the store was closed while a write was waiting; open it again.")
        replaced = self._waiting.get(digest)
        if replaced is None:
            self._num_accepted += 1
        else:
            self._held_bytes -= replaced.num_bytes
        self._waiting[digest] = intent
        self._held_bytes += intent.num_bytes
        self._uses.pop(digest, None)
        self._changed.notify_all()

    def _next_tick(self) -> int:
        # Wall time orders the uses of several processes; the bump makes every tick of this one new.
        self._tick = max(time.time_ns(), self._tick + 1)
        return self._tick
