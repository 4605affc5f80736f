"""The shared tier: records on a server, or in object storage, for any number of machines."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from weakref import finalize

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.errors import CorruptRecordError, StoreClosedError, StoreUnavailableError
from kamera_agent.store.base import CheckReport, Store, StoreStats
from kamera_agent.store.capacity import record_bytes
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import require_storable
from kamera_agent.store.counters import Counters
from kamera_agent.store.remote.layout import Layout
from kamera_agent.store.remote.listings import Listings
from kamera_agent.store.remote.medium import Blob, Medium
from kamera_agent.store.remote.quarantine import Quarantine
from kamera_agent.store.remote.reader import PartGoneError, PartLateError, Piece, Reader, arriving
from kamera_agent.store.remote.wire import Allowance, Wire
from kamera_agent.store.remote.writer import Writer
from kamera_agent.store.write_queue import WriteQueue
from kamera_agent.trouble import Trouble

# Of what no answer waits for: each request of a check or a list of all records, and the sizes.
SURVEY_S, STATS_S = 60.0, 2.0
PAGE = 256

Removal = Callable[[], None]

_log = logging.getLogger("kamera_agent.store")


class RemoteStore(Store):
    """Keeps records on a medium that others use, too, that may be slow or gone, and that forgets as it likes.

    A turn waits for it for at most so long, and after a failure not at all for a while; what it did not serve is a
    miss. Writes go into a bounded queue, can be read back at once, and are written by one thread. The medium has a cap
    of its own, if any: cap_bytes is 0, and use() changes nothing, because only the medium decides what goes first.
    After a fork, open the store again in the child.

    timeout_s: how long the reads of a turn may take in all.
    cipher: encrypts the records, and the names of records and chunks. Records of another key are not seen.
    """

    def __init__(self, medium: Medium, timeout_s: float, cipher: Cipher | None = None) -> None:
        self._medium, self._layout, self._cipher = medium, Layout(cipher), cipher
        self._pid = os.getpid()
        self._counters, self._listings = Counters(), Listings()
        self._allowance = Allowance(timeout_s)
        address = medium.address
        self._wire = Wire(
            Trouble(
                _log,
                f"the shared store {address} does not answer; its chunks are computed again",
                f"the shared store {address} answers again",
            ),
            medium.errors,
        )
        # On a wire of its own: a long list says nothing of how soon a record comes.
        self._surveying = Wire(
            Trouble(
                _log,
                f"the records of the shared store {address} cannot be counted",
                f"the records of the shared store {address} are counted again",
            ),
            medium.errors,
            max_calls=1,
        )
        self._quarantine = Quarantine(medium, self._layout, self._listings, self._counters)
        self._reader = Reader(medium, self._layout, self._listings, self._quarantine.take)
        self._writer = Writer(medium, self._layout, self._listings)
        self._queue = self._writer.queue
        self._sizes: dict[str, int] = {}
        self._closed = False
        # A store that nobody closes ends its thread, which refers to nothing of the store itself.
        finalize(self, _end, self._pid, self._queue)

    @property
    def is_encrypted(self) -> bool:
        return self._cipher is not None

    def expect(self, chunks: Sequence[bytes]) -> None:
        self._require_usable()
        self._allowance.begin()
        names = [self._layout.name(chunk) for chunk in chunks]
        if any(self._listings.find(name) is None for name in names):
            self._allowance.spend(partial(self._wire.ask, partial(self._reader.look_up, names)))

    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        self._require_usable()
        # The queue first: a record that is written in between is then on the medium.
        intents = {key.digest: self._queue.find(key.digest) for key in keys}
        queued = [intent.record for intent in intents.values() if intent is not None and intent.record is not None]
        found = queued + self._read([key for key in dict.fromkeys(keys) if intents[key.digest] is None])
        materials = {key.digest: key.material for key in keys}
        records = {
            record.header.key.digest: record
            for record in found
            if record.header.key.material == materials[record.header.key.digest]
        }
        num_bytes = sum(record.header.num_bytes for record in records.values())
        self._counters.add({"hits": len(records), "misses": len(set(keys)) - len(records), "bytes_read": num_bytes})
        return records

    def put_many(self, records: Iterable[Record]) -> None:
        """See Store. Waits while the queue is full; a medium that is gone empties it at once."""
        self._require_usable()
        for record in records:
            require_storable(record)
            self._queue.put(record)

    def delete(self, keys: Sequence[Key]) -> None:
        self._require_usable()
        for key in keys:
            self._queue.remove(key.digest)

    def use(self, keys: Sequence[Key]) -> None:
        """Nothing: the medium counts what it serves itself."""
        self._require_usable()

    def headers(self, chunk: bytes | None = None) -> list[Header]:
        """See Store. What others put into a chunk is found LISTED_S seconds after it was last asked for, or sooner."""
        self._require_usable()
        pending = self._queue.pending()
        stored = self._all_headers() if chunk is None else self._headers(chunk)
        queued = [intent.record.header for intent in pending.values() if intent.record is not None]
        found = [header for header in stored if header.key.digest not in pending]
        found += [header for header in queued if chunk in (None, header.chunk)]
        # The patches over a base whose removal is queued are still listed.
        bases = {header.key.digest for header in found if header.kind == "base"}
        return [header for header in found if header.base is None or header.base in bases]

    def flush(self) -> None:
        """See Store. What the medium itself makes of it, such as when it writes to a disk, is its own affair."""
        self._require_usable()
        self._queue.drain()

    def stats(self) -> StoreStats:
        """Counters and sizes. The sizes are those of all records on the medium, with those that wait to be written.

        They are found by listing the medium. Where that takes longer than STATS_S seconds, they are those of the last
        list that came to its end.
        """
        self._require_usable()
        pending = self._queue.pending()
        self._surveying.ask(self._survey, STATS_S)
        sizes = dict(self._sizes)
        for digest, intent in pending.items():
            sizes.pop(self._layout.name(digest), None)
            if intent.record is not None:
                sizes[self._layout.name(digest)] = intent.record.header.num_bytes
        counts = self._writer.counters.snapshot() | self._counters.snapshot()
        return StoreStats(len(sizes), sum(sizes.values()), **counts)

    def check(self) -> CheckReport:
        self.flush()
        problems, sizes = list[str](), list[int]()

        def note(name: str, blob: Blob, reason: str) -> None:
            problems.append(f"record {name}: {reason}")
            self._quarantine.take(name, blob, reason)

        # With a memory of its own, so that it sees what is there now.
        reader = Reader(self._medium, self._layout, Listings(), note)
        names = self._wire.ask(reader.names, SURVEY_S)
        for page in _pages(names or []):
            for stored in self._wire.ask(partial(reader.headers, page), SURVEY_S) or []:
                records, removals = self._decode(self._wire.stream(partial(reader.fill, [stored]), SURVEY_S), note)
                sizes += [record_bytes(record.header) for record in records]
                for remove in removals:
                    self._wire.ask(remove, SURVEY_S)
        if names is None:
            problems.append(f"{self._medium.address} does not answer; see the log")
        return CheckReport(len(sizes), sum(sizes), tuple(problems))

    def close(self) -> None:
        self._closed = True
        if self._pid == os.getpid():
            self._writer.close()

    def _read(self, keys: Sequence[Key]) -> list[Record]:
        """What the medium has of keys, within what the turn has left."""
        if not keys:
            return []

        def read(seconds: float) -> tuple[list[Record], list[Removal]]:
            return self._decode(self._wire.stream(partial(self._reader.fetch, keys), seconds), self._quarantine.take)

        records, removals = self._allowance.spend(read)
        for remove in removals:
            self._allowance.spend(partial(self._wire.ask, remove))
        return [record for record in records if not self._is_going(record.header)]

    def _decode(
        self, pieces: Iterable[Piece], on_damage: Callable[[str, Blob, str], None]
    ) -> tuple[list[Record], list[Removal]]:
        """The records whose parts come, each part read while the next ones are on their way.

        With them the removals of those that are not what was written, or of which a part is gone.
        """
        records, removals = list[Record](), list[Removal]()
        for stored, own in groupby(pieces, key=lambda piece: piece.stored):
            try:
                records.append(self._layout.read_record(stored, arriving(own)))
                continue
            except PartLateError:
                break
            except PartGoneError:
                removals.append(partial(self._quarantine.forget, stored.name, stored.blob))
            except CorruptRecordError as error:
                removals.append(partial(on_damage, stored.name, stored.blob, str(error)))
            self._listings.drop(self._layout.name(bytes.fromhex(stored.manifest.chunk)))
        return records, removals

    def _is_going(self, header: Header) -> bool:
        """Whether the removal of the base of a patch is queued."""
        intent = self._queue.find(header.base) if header.base else None
        return intent is not None and intent.record is None

    def _headers(self, chunk: bytes) -> list[Header]:
        name = self._layout.name(chunk)
        listing = self._listings.find(name)
        if listing is None:
            look_up = partial(self._reader.look_up, [name])
            listing = (self._allowance.spend(partial(self._wire.ask, look_up)) or {}).get(name, {})
        return [each.manifest.header for each in listing.values()]

    def _all_headers(self) -> list[Header]:
        names = self._wire.ask(self._reader.names, SURVEY_S) or []
        pages = (self._wire.ask(partial(self._reader.headers, page), SURVEY_S) or [] for page in _pages(names))
        return [each.manifest.header for page in pages for each in page]

    def _survey(self) -> None:
        self._sizes = self._reader.sizes()

    def _require_usable(self) -> None:
        if self._closed:
            raise StoreClosedError(f"the shared store {self._medium.address} was closed; open it again.")
        if self._pid != os.getpid():
            raise StoreUnavailableError(
                f"the shared store {self._medium.address} was opened by process {self._pid}, and process "
                f"{os.getpid()} was forked from it; open the store again in the child."
            )


def _end(pid: int, queue: WriteQueue) -> None:
    # In a forked child, a thread of its parent may hold the lock of the queue for ever.
    if os.getpid() == pid:
        queue.close()


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + PAGE] for start in range(0, len(names), PAGE))
