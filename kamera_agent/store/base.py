"""The store contract, which every tier fulfils."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.closing import Closing


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters since the store was opened, and its sizes now.

    hits, misses and bytes_read belong to the store. All other figures belong to its medium, so they are the same for
    every store over that medium in this process.
    """

    num_records: int = 0
    num_bytes: int = 0
    cap_bytes: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    quarantined: int = 0
    failed_writes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The records that check() read. problems: empty when every record is whole and genuine."""

    num_records: int
    num_bytes: int
    problems: tuple[str, ...] = ()


class Store(Closing):
    """Keeps records by key. Takes and returns batches. Safe for use from several threads.

    A base and its patches belong to one chunk. A base that is evicted, deleted, damaged, or replaced by a put of other
    content takes its patches with it. Using a patch uses its base.

    A store may forget: any record can be evicted at any time, so a miss is never an error. A record that it serves
    equals, bit for bit, the one that was put. When the medium fails after opening (a full disk, a damaged page), the
    failure is counted and logged but never raised: the caller computes the chunk again.
    """

    @property
    def medium(self) -> object:
        """The owner of the records: an object that all stores over the same records in this process share."""
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether what it keeps on a disk is encrypted."""
        return False

    @abstractmethod
    def get_many(self, keys: Sequence[Key]) -> dict[bytes, Record]:
        """The records of the keys, by key digest. Misses are left out.

        A record whose stored material differs from the key's is a miss. Every read from a medium verifies the
        checksums. The tensors belong to the caller and outlive the store, but must not be written to.

        Raises StoreClosedError after close().
        """

    @abstractmethod
    def put_many(self, records: Iterable[Record]) -> None:
        """Store the records, each as a whole or not at all. May return before they are durable.

        A record replaces the stored one of the same key; an equal one changes nothing but the time of its last use. A
        patch comes after its base; without a stored base it is dropped, and counts as evicted.

        Raises StoreClosedError after close(), and InputError for a record that the medium cannot hold, before it takes
        that record: a tensor that is not on the CPU, an unknown dtype, attributes that are not JSON, a patch without
        the digest of a base.
        """

    @abstractmethod
    def delete(self, keys: Sequence[Key]) -> None:
        """Remove the records. Unknown keys are ignored."""

    @abstractmethod
    def use(self, keys: Sequence[Key]) -> None:
        """Count the records as used just now, because a faster tier served them. Unknown keys are ignored.

        Not a read: hits and misses stay as they are. Raises StoreClosedError after close().
        """

    @abstractmethod
    def headers(self, chunk: bytes | None = None) -> list[Header]:
        """Headers of the records of one chunk, or of all records, also of those that are not durable yet.

        No patch is among them without its base. Reads no tensors.
        """

    def expect(self, chunks: Sequence[bytes]) -> None:
        """A turn begins in this thread, which will ask for the headers of these chunks: a hint for a tier far away.

        Raises StoreClosedError after close().
        """

    @abstractmethod
    def flush(self) -> None:
        """Wait until every record put so far is durable, evicted or counted as failed.

        On a disk, durable means that a power cut leaves it there, as far as the disk keeps what it says it has.
        """

    @abstractmethod
    def stats(self) -> StoreStats:
        """The counters and sizes."""

    @abstractmethod
    def check(self) -> CheckReport:
        """Read and verify every record. Damaged ones are quarantined and named in the report."""

    @abstractmethod
    def close(self) -> None:
        """Flush and release. Idempotent."""
