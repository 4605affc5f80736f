"""Reading records from the tables, and detecting damaged ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from kamera_agent.chunk import Header, Key, Record
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.capacity import record_bytes
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import decode_header, decode_layers, read_manifest
from kamera_agent.store.manifest import Manifest
from kamera_agent.store.tables import Tables
from kamera_agent.store.transaction import Transaction
from kamera_agent.store.write_queue import Intent


class Reader:
    """Queries over the tables, each run inside one read transaction. A pending write hides the stored record.

    What has expired is a miss, whether or not it was removed.

    cipher: of an encrypted store.
    on_damage: called with the digest of a record that fails verification, and the reason.
    """

    def __init__(self, tables: Tables, cipher: Cipher | None, on_damage: Callable[[bytes, str], None]) -> None:
        self._tables = tables
        self._cipher = cipher
        self._on_damage = on_damage

    def find(
        self, keys: Sequence[Key], intents: Mapping[bytes, Intent | None], txn: Transaction
    ) -> dict[bytes, Record]:
        """The records of the keys, by digest. intents: the pending write of every key, or None."""
        records = {}
        for key in keys:
            intent = intents[key.digest]
            record = self._load(key, txn) if intent is None else intent.record
            if record is not None and record.header.key.material == key.material:
                records[key.digest] = record
        return records

    def verify(self, digest: bytes, txn: Transaction) -> int | str:
        """Bytes that a whole record counts, the problem of a damaged one, or 0 for one that is gone."""
        try:
            if self._tables.entry(txn, digest) is None:
                return 0
            manifest = self._manifest(digest, txn)
            if manifest is None:
                raise CorruptRecordError("the header is missing")
            return record_bytes(self._record(manifest, txn).header)
        except CorruptRecordError as error:
            self._on_damage(digest, str(error))
            return f"record {digest.hex()}: {error}"

    def headers(self, chunk: bytes | None, pending: Mapping[bytes, Intent], txn: Transaction) -> list[Header]:
        """Headers of the stored records of one chunk, or of all, without those that have a pending write or expired."""
        headers = []
        for digest in self._tables.digests(txn, chunk):
            try:
                is_hidden = digest in pending or self._tables.has_expired(txn, digest)
                manifest = None if is_hidden else self._manifest(digest, txn)
            except CorruptRecordError as error:
                self._on_damage(digest, str(error))
                continue
            if manifest is not None:
                headers.append(manifest.header)
        return headers

    def sizes(self, pending: Mapping[bytes, Intent], txn: Transaction) -> tuple[int, int]:
        """Number and bytes of the records after all pending writes, before eviction."""
        num_records, num_bytes = self._tables.num_records(txn), self._tables.held_bytes(txn)
        for digest, intent in pending.items():
            entry = self._tables.entry(txn, digest)
            num_records += (intent.record is not None) - (entry is not None)
            num_bytes += intent.num_bytes - (0 if entry is None else entry.num_bytes)
        return num_records, num_bytes

    def survey(self, txn: Transaction) -> tuple[list[bytes], list[str]]:
        """Digests of all records, and the contradictions between the tables."""
        return self._tables.digests(txn), self._tables.problems(txn)

    def _load(self, key: Key, txn: Transaction) -> Record | None:
        try:
            manifest = self._manifest(key.digest, txn)
            if manifest is None or manifest.material != key.material or self._tables.has_expired(txn, key.digest):
                return None
            return self._record(manifest, txn)
        except CorruptRecordError as error:
            self._on_damage(key.digest, str(error))
            return None

    def _manifest(self, digest: bytes, txn: Transaction) -> Manifest | None:
        blob = self._tables.header(txn, digest)
        if blob is None:
            return None
        cipher = self._cipher
        manifest = read_manifest(cipher.decrypt_header(digest, blob)) if cipher else decode_header(blob)
        if manifest.digest != digest.hex():
            raise CorruptRecordError(f"the header is that of record {manifest.digest}")
        return manifest

    def _record(self, manifest: Manifest, txn: Transaction) -> Record:
        header = manifest.header
        digest = header.key.digest
        fetch = partial(self._tables.value, txn, digest)
        if self._cipher is None:
            return Record(header, decode_layers(manifest, fetch))
        blob = self._tables.header(txn, digest) or b""
        return Record(header, decode_layers(manifest, fetch, partial(self._cipher.opener, digest, blob)))
