"""Writing records to a shared tier, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from functools import partial

from kamera_agent.chunk import Record
from kamera_agent.config import MIB
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.counters import Counters
from kamera_agent.store.remote.layout import NO_BASE, Layout, Stored
from kamera_agent.store.remote.listings import Listings
from kamera_agent.store.remote.medium import Medium
from kamera_agent.store.remote.wire import Wire
from kamera_agent.store.write_queue import Intent, WriteQueue
from kamera_agent.trouble import Trouble

QUEUE_BYTES = 256 * MIB
BATCH_BYTES = 16 * MIB
# Of one record. Nobody waits for it but who flushes.
WRITE_S = 10.0
# Nobody misses a write at once, but what waits for a server that is silent takes memory.
RESTS = 6

_log = logging.getLogger("kamera_agent.store")


class Writer:
    """The thread that writes what is queued, one record after the other.

    Parts come first, then the header, then its name in the folder of the chunk, and the old parts go last. Whoever
    reads meanwhile sees the old record, the new one, or none. A record that cannot be written is dropped and counted in
    failed_writes, and so are all others while the medium is left alone after that.
    """

    def __init__(self, medium: Medium, layout: Layout, listings: Listings) -> None:
        self._medium, self._layout, self._listings = medium, layout, listings
        self._wire = Wire(
            Trouble(
                _log,
                f"the shared store {medium.address} cannot be written; its share of new chunks is lost",
                f"the shared store {medium.address} is written",
            ),
            medium.errors,
            RESTS,
        )
        self.counters = Counters()
        self.queue = WriteQueue(QUEUE_BYTES, after=0)
        self._thread = threading.Thread(target=self._run, name="kamera-shared-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is queued. Idempotent."""
        self.queue.close()
        self._thread.join()

    def _run(self) -> None:
        while (batch := self.queue.take(BATCH_BYTES)) is not None:
            try:
                for digest, intent in batch.intents.items():
                    counts = self._wire.ask(partial(self._apply, digest, intent), WRITE_S)
                    failed = Counter(failed_writes=int(intent.record is not None))
                    self.counters.add(failed if counts is None else counts)
            finally:
                self.queue.done()
        self._medium.close()

    def _apply(self, digest: bytes, intent: Intent) -> Counter[str]:
        name = self._layout.name(digest)
        old = self._find(name)
        if intent.record is None:
            self._take_back(name, old)
            return Counter()
        return self._put(intent.record, old)

    def _put(self, record: Record, old: Stored | None) -> Counter[str]:
        header, over = record.header, NO_BASE
        if header.base:
            base = self._find(self._layout.name(header.base))
            if base is None:
                self._take_back(self._layout.name(header.key.digest), old)
                return Counter(evictions=1)
            over = base.identity
        new, parts = self._layout.write(record, over)
        if old is None or old.blob != new.blob:
            self._medium.put(dict(zip(self._layout.parts(new), parts, strict=True)))
            self._medium.put({self._layout.header(new.name): new.blob})
        chunk = self._layout.name(header.chunk)
        self._medium.add(self._layout.folder(chunk), new.name)
        self._listings.drop(chunk)
        if old is not None and old.identity != new.identity:
            self._medium.delete(self._layout.parts(old))
            self._remove_patches(old)
        return Counter(bytes_written=header.num_bytes)

    def _take_back(self, name: str, old: Stored | None) -> None:
        """Remove a record with the patches over it. old: its header, if that can be read."""
        self._medium.delete([self._layout.header(name)])
        if old is not None:
            chunk = self._layout.name(bytes.fromhex(old.manifest.chunk))
            self._medium.remove(self._layout.folder(chunk), [name])
            self._listings.drop(chunk)
            self._medium.delete(self._layout.parts(old))
            self._remove_patches(old)

    def _remove_patches(self, base: Stored) -> None:
        """Remove the patches over a content that a base no longer has. Until then, nobody is offered them."""
        if base.manifest.base is not None:
            return
        folder = self._layout.folder(self._layout.name(bytes.fromhex(base.manifest.chunk)))
        for name in self._medium.members([folder])[0]:
            patch = self._find(name)
            if patch is not None and patch.over == base.identity:
                self._medium.delete([self._layout.header(name)])
                self._medium.remove(folder, [name])
                self._medium.delete(self._layout.parts(patch))

    def _find(self, name: str) -> Stored | None:
        """The header of a record as it is stored now; None where it is gone or damaged."""
        blob = self._medium.get([self._layout.header(name)])[0]
        try:
            return None if blob is None else self._layout.read_header(name, blob)
        except CorruptRecordError:
            return None
