"""The disk tier: a folder with one LMDB environment."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from reprlib import repr as short
from weakref import finalize

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.config import MIB, Policy, locate
from kamera_agent.errors import CorruptRecordError, SettingError, StoreClosedError, StoreUnavailableError
from kamera_agent.options import real
from kamera_agent.secret import SecretSource, read_secret
from kamera_agent.store.base import CheckReport, Store, StoreStats
from kamera_agent.store.capacity import MAX_SECONDS, record_bytes, require_bytes, require_seconds
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import require_storable
from kamera_agent.store.counters import Counters
from kamera_agent.store.entry import Entry
from kamera_agent.store.eviction import POLICIES
from kamera_agent.store.quotas import quota_problems, quotas
from kamera_agent.store.reader import Reader
from kamera_agent.store.sharing import lend_writer
from kamera_agent.store.transaction import Transaction
from kamera_agent.store.writer import Writer

DEFAULT_QUEUE_BYTES = 256 * MIB
UNREADABLE = "the database cannot be read; see the log"

_log = logging.getLogger("kamera_agent.store")


class LmdbStore(Store):
    """Keeps records in a folder on a local disk, across restarts and for several processes.

    Reads verify every checksum. Writes go into a bounded queue, can be read back at once, and are committed in batches
    by one thread. Above the cap, records are evicted by the policy of the folder. Stores over one folder share one
    environment and queue in a process; several processes may use one folder. A network file system does not work. After
    a fork, open the folder again in the child. Each format has a file of its own in the folder, so versions of this
    package with different formats may use one folder.

    path: the folder; created with mode 0700 when it is missing.
    cap_bytes: bound of the stored bytes; a record counts as its tensors, but at least 4 KiB. None: a tenth of the free
        disk, at most 20 GiB. The cap belongs to the folder: one that has another keeps it, and the log says so.
    queue_bytes: bound of the bytes that wait to be written; put_many() blocks above it.
    repair: whether damaged records are removed, and a database whose structure is damaged makes way for a new one.
        False: damage is reported, and everything stays as it is.
    key: encrypts the records; see Settings.encryption_key. None: they are not encrypted.
    policy: what is evicted first, as set_policy() sets it; None: as the folder has it.
    quota_bytes, ttl_s: likewise, what each namespace may hold and how long a record is kept, as set_quota() and
        set_ttl() set them.

    Raises SettingError for a negative size, a time of 0, an unknown policy and a key that cannot be read,
    MissingExtraError where the package of the extra "encryption" is missing, and StoreUnavailableError when the folder
    cannot be opened: as StoreDamagedError when its structure is damaged and must not be repaired, as StoreKeyError when
    its key is another.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        cap_bytes: int | None = None,
        queue_bytes: int = DEFAULT_QUEUE_BYTES,
        repair: bool = True,
        key: SecretSource | None = None,
        policy: Policy | None = None,
        quota_bytes: int | None = None,
        ttl_s: int | None = None,
    ) -> None:
        if cap_bytes is not None:
            cap_bytes = require_bytes("cap_bytes", cap_bytes)
        queue_bytes = require_bytes("queue_bytes", queue_bytes)
        quota_bytes = None if quota_bytes is None else require_bytes("quota_bytes", quota_bytes)
        ttl_s = None if ttl_s is None else require_seconds("ttl_s", ttl_s)
        cipher = None if key is None else Cipher(read_secret("encryption_key", key))
        self._path = locate(path).resolve()
        self._pid = os.getpid()
        self._counters = Counters()
        self._lease = lend_writer(self._path, cap_bytes, queue_bytes, repair, cipher)
        # A store that nobody closes gives its folder back. Nothing below refers to the store itself: it would then live
        # until the garbage collector runs.
        finalize(self, self._lease.drop).atexit = False
        self._writer = self._lease.writer
        self._database, self._queue = self._writer.database, self._writer.queue
        on_damage = partial(_quarantine if repair else _mention, self._writer)
        self._reader = Reader(self._database.tables, self._database.cipher, on_damage)
        self._closed = False
        if policy not in (None, self.policy):
            self.set_policy(policy)
        if quota_bytes not in (None, self.quota_bytes):
            self.set_quota(quota_bytes)
        if ttl_s not in (None, self.ttl_s):
            self.set_ttl(ttl_s)
        if repair and (kept_s := self.ttl_s) is not None:
            with suppress(StoreUnavailableError):  # What has expired is not read, and goes with the next write.
                self._writer.expire_stored(_moment("ttl_s", kept_s))

    @property
    def medium(self) -> object:
        """The folder's writer."""
        return self._writer

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    @property
    def is_encrypted(self) -> bool:
        return self._database.cipher is not None

    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        self._require_usable()
        # The queue first, then the transaction: a record that is committed in between is then in the snapshot. In the
        # other order, it could be missing from both.
        intents = {key.digest: self._queue.find(key.digest) for key in keys}
        records = self._database.read(partial(self._reader.find, keys, intents)) or {}
        for digest in records:
            self._queue.use(digest)
        num_bytes = sum(record.header.num_bytes for record in records.values())
        self._counters.add({"hits": len(records), "misses": len(set(keys)) - len(records), "bytes_read": num_bytes})
        return records

    def records(self, headers: Iterable[Header]) -> Iterator[Record]:
        """The stored records of headers, each patch after its base, one at a time. None of them counts as used.

        What is damaged, gone or not written yet is left out, and a patch whose base is.
        """
        self._require_usable()
        taken = set[bytes]()
        for header in sorted(headers, key=lambda header: header.kind):
            if header.base is None or header.base in taken:
                found = self._database.read(partial(self._reader.find, [header.key], {header.key.digest: None}))
                for digest, record in (found or {}).items():
                    taken.add(digest)
                    yield record

    def put_many(self, records: Iterable[Record]) -> None:
        """See Store. Waits while the queue is full. A record above cap or quota fails, and removes the stored one.

        The patches over a base that is replaced are dropped when it is written, in the same transaction.
        """
        self._require_usable()
        for record in records:
            require_storable(record)
            bound = self._database.read(partial(self._bound, record.header))
            if bound is None or record_bytes(record.header) <= bound:
                self._queue.put(record)
            else:
                self._remove(record.header.key.digest)
                self._writer.counters.add({"failed_writes": 1})

    def delete(self, keys: Sequence[Key]) -> None:
        self._require_usable()
        for key in keys:
            self._remove(key.digest)

    def use(self, keys: Sequence[Key]) -> None:
        self._require_usable()
        for key in keys:
            self._queue.use(key.digest)

    def headers(self, chunk: bytes | None = None) -> list[Header]:
        self._require_usable()
        pending = self._queue.pending()
        stored = self._database.read(partial(self._reader.headers, chunk, pending)) or []
        queued = [intent.record.header for intent in pending.values() if intent.record is not None]
        found = stored + [header for header in queued if chunk in (None, header.chunk)]
        # A base that was just found to be damaged still has its patches in the tables.
        bases = {header.key.digest for header in found if header.kind == "base"}
        return [header for header in found if header.base is None or header.base in bases]

    def entries(self) -> dict[bytes, Entry]:
        """The facts about every stored record, by key digest, once all that waits is written."""
        self.flush()
        return self._database.read(self._database.tables.all_entries) or {}

    def flush(self) -> None:
        self._require_usable()
        self._queue.drain()

    def stats(self) -> StoreStats:
        """Counters and sizes, including the records that wait to be written."""
        self._require_usable()
        pending = self._queue.pending()
        num_records, num_bytes = self._database.read(partial(self._reader.sizes, pending)) or (0, 0)
        counts = self._writer.counters.snapshot() | self._counters.snapshot()
        return StoreStats(num_records, num_bytes, self._database.cap_bytes, **counts)

    def resize(self, cap_bytes: int) -> None:
        """Set the cap of the folder, for all its processes, and evict what is above it. The file keeps its size.

        Raises SettingError for a negative cap, and StoreUnavailableError when the medium fails.
        """
        self._require_usable()
        self._writer.resize(require_bytes("cap_bytes", cap_bytes))

    def prune(self, max_bytes: int | None = None, unused_s: float | None = None, stored_s: float | None = None) -> None:
        """Remove records: by the policy of the folder those above a size, and those not used for so many seconds.

        Records of pinned chunks go last to a size, and stay otherwise. stored_s: also remove what was stored longer ago
        than so many seconds, however often it was used, pinned or not. Raises SettingError for a negative bound, and
        StoreUnavailableError when the medium fails.
        """
        self.flush()
        if max_bytes is not None:
            self._writer.evict(require_bytes("max_bytes", max_bytes))
        if unused_s is not None:
            self._writer.expire_unused(_moment("unused_s", unused_s))
        if stored_s is not None:
            self._writer.expire_stored(_moment("stored_s", stored_s))

    @property
    def policy(self) -> Policy:
        """What is evicted first: see store/eviction.py."""
        self._require_usable()
        return self._database.read(self._database.tables.policy) or "lru"

    def set_policy(self, policy: Policy) -> None:
        """Choose what is evicted first from now on, for all processes that use the folder.

        Raises SettingError for an unknown policy, and StoreUnavailableError when the medium fails.
        """
        self._require_usable()
        if policy not in POLICIES:
            raise SettingError(f"policy is {short(policy)}; use one of {', '.join(POLICIES)}.")
        self._database.write(partial(self._database.tables.set_policy, policy))

    @property
    def quota_bytes(self) -> int | None:
        """The most that each namespace may hold that has no quota of its own; None for the cap."""
        self._require_usable()
        return self._database.read(self._database.tables.quota_bytes)

    def quotas(self) -> dict[str, int]:
        """Of each namespace that has a quota of its own, the most that it may hold."""
        self._require_usable()
        return quotas(self._database)

    def set_quota(self, quota_bytes: int | None, namespace: str | None = None) -> None:
        """Bound what each namespace may hold from now on, for all processes, and evict what is above. None: the cap.

        A namespace above its quota gives way before any other, and no other gives way to it.

        namespace: the one to bound, whatever the others may hold. With it, None takes its own quota back: what each
        may hold then bounds it. Raises SettingError for a negative quota, and StoreUnavailableError when the medium
        fails.
        """
        self._require_usable()
        self._writer.limit(None if quota_bytes is None else require_bytes("quota_bytes", quota_bytes), namespace)

    @property
    def ttl_s(self) -> int | None:
        """Seconds that a record is kept; None for as long as there is room."""
        self._require_usable()
        return self._database.read(self._database.tables.ttl_s)

    def set_ttl(self, ttl_s: int | None) -> None:
        """Choose how long a record is kept after it was stored, from now on and for all processes. None: any time.

        However often it is used, pinned or not: after that it is a miss. It is removed with the next write, or when the
        folder is opened. Raises SettingError for a time that is not a whole number of seconds above 0, and
        StoreUnavailableError when the medium fails.
        """
        self._require_usable()
        ttl_s = None if ttl_s is None else require_seconds("ttl_s", ttl_s)
        self._database.write(partial(self._database.tables.set_ttl, ttl_s))
        if ttl_s is not None:
            self._writer.expire_stored(_moment("ttl_s", ttl_s))

    def pins(self) -> set[bytes]:
        """Digests of the pinned chunks, whether or not they have records."""
        self._require_usable()
        return self._database.read(self._database.tables.pins) or set()

    def pin(self, chunk: bytes) -> None:
        """Have the records of a chunk evicted after all others, for all processes, until unpin().

        Raises StoreUnavailableError when the medium fails.
        """
        self._require_usable()
        self._database.write(partial(self._database.tables.pin, chunk))

    def unpin(self, chunk: bytes) -> None:
        """Take a pin away; a chunk without one is ignored. Raises StoreUnavailableError when the medium fails."""
        self._require_usable()
        self._database.write(partial(self._database.tables.unpin, chunk))

    def check(self) -> CheckReport:
        """See Store. Without repair=True, damaged records are named and stay.

        Names also the faults of a damaged database that was moved aside when this one was opened.
        """
        self.flush()
        problems = [*self._database.faults, *self._find_faults()]
        digests, contradictions = self._database.read(self._reader.survey) or ([], [UNREADABLE])
        problems += contradictions + quota_problems(self._database)
        sizes: list[int] = []
        for digest in digests:
            # One transaction per record: a long one would keep the writer from reusing replaced pages.
            outcome = self._database.read(partial(self._reader.verify, digest))
            if outcome is None:
                problems.append(f"record {digest.hex()}: {UNREADABLE}")
            elif isinstance(outcome, str):
                problems.append(outcome)
            elif outcome:
                sizes.append(outcome)
        self.flush()
        return CheckReport(len(sizes), sum(sizes), tuple(problems))

    def _find_faults(self) -> list[str]:
        try:
            return self._database.find_faults()
        except (StoreUnavailableError, OSError) as error:
            return [str(error)]

    def close(self) -> None:
        self._closed = True
        self._lease.close()

    def _bound(self, header: Header, txn: Transaction) -> int:
        """The most that a record may take."""
        return self._database.tables.record_bound(self._database.namespace_of(header, txn), txn)

    def _remove(self, digest: bytes) -> None:
        patches = self._database.read(partial(self._database.tables.patches_over, digest=digest)) or []
        for removed in (*patches, digest):
            self._queue.remove(removed)

    def _require_usable(self) -> None:
        if self._closed:
            raise StoreClosedError(f"the store {self._path} was closed; open it again.")
        if self._pid != os.getpid():
            raise StoreUnavailableError(
                f"the store {self._path} was opened by process {self._pid}, and process {os.getpid()} was "
                "forked from it; open the store again in the child."
            )


def _moment(name: str, seconds: float) -> int:
    """The time so many seconds ago, in ns since 1970. Raises SettingError."""
    if not (seconds := real(name, seconds)) >= 0:
        raise SettingError(f"{name} is {seconds}; use 0 or more seconds.")
    return max(0, time.time_ns() - int(min(seconds, MAX_SECONDS) * 1e9))


def _mention(writer: Writer, digest: bytes, reason: str) -> None:
    _log.warning("record %s of the store %s is damaged: %s", digest.hex(), writer.database.path, reason)


def _quarantine(writer: Writer, digest: bytes, reason: str) -> None:
    if writer.queue.quarantine(digest, reason):
        writer.counters.add({"quarantined": 1})
        writer.damage.failed(CorruptRecordError(reason))
