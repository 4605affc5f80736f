"""Another key for a store: its records are written anew, and the new file takes the place of the old one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from kamera_agent.chunk import Record
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.secret import SecretSource, read_secret
from kamera_agent.store.capacity import batch_bytes
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.codec import encode
from kamera_agent.store.entry import Entry
from kamera_agent.store.environment import DATABASE, Environment, sync_folder
from kamera_agent.store.inspection import Seal, alone, is_in_use
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.quotas import set_quota_of
from kamera_agent.store.transaction import Transaction

DRAFT = ".rekey-"


def rekey(path: Path, old: SecretSource | None, new: SecretSource) -> tuple[int, int]:
    """Encrypt a store with a new key. What was agreed for it, and the facts of its records, stay as they are.

    old: its key; None for a store that is not encrypted. Nobody else may have the store open. It takes as much disk as
    the store, until it is done. Returns the numbers of records written, and of damaged ones that were left out. If
    anything fails, the store is as it was.

    Raises what LmdbStore() raises, and StoreUnavailableError for a store in use or a disk that is full.
    """
    cipher = Cipher(read_secret("the new key", new))
    _require_unused(path)
    _remove_drafts(path)
    try:
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=path))
        with LmdbStore(path, repair=False, key=old) as store:
            num_written, num_records = _write(store, draft, cipher), store.stats().num_records
        with alone(path / DATABASE):
            # Nobody can open it now. Whoever still has it open would share the locks of another file.
            _require_unused(path)
            Seal(path / DATABASE).break_up()
            os.replace(draft / DATABASE, path / DATABASE)
            sync_folder(path)
    except OSError as error:
        raise StoreUnavailableError(f"the store {path} cannot be written anew: {error}.") from error
    finally:
        _remove_drafts(path)
    return num_written, num_records - num_written


def _write(store: LmdbStore, folder: Path, cipher: Cipher) -> int:
    """Write the records of a store to a new database in a folder. Returns their number."""
    if store.ttl_s is not None:
        store.prune(stored_s=store.ttl_s)
    entries, num_written = store.entries(), 0
    database = Environment(folder, store.stats().cap_bytes, cipher=cipher)
    try:
        headers = [header for header in store.headers() if header.key.digest in entries]
        database.write(partial(database.tables.set_policy, store.policy))
        database.write(partial(database.tables.set_quota, store.quota_bytes))
        for namespace, quota_bytes in store.quotas().items():
            set_quota_of(database, namespace, quota_bytes)
        database.write(partial(database.tables.set_ttl, store.ttl_s))
        for chunk in store.pins():
            database.write(partial(database.tables.pin, chunk))
        for batch in _batches(store.records(headers), batch_bytes(database.cap_bytes)):
            if database.write(partial(_put, database, entries, batch)) is None:
                raise StoreUnavailableError(f"the records of the store {store.path} do not fit in a file of its cap.")
            num_written += len(batch)
    finally:
        database.close()
    return num_written


def _batches(records: Iterator[Record], max_bytes: int) -> Iterator[list[Record]]:
    batch, num_bytes = list[Record](), 0
    for record in records:
        batch.append(record)
        num_bytes += record.header.num_bytes
        if num_bytes >= max_bytes:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _put(database: Environment, entries: Mapping[bytes, Entry], batch: list[Record], txn: Transaction) -> int:
    tables, cipher = database.tables, database.cipher
    assert cipher
    for record in batch:
        digest = record.header.key.digest
        entry = entries[digest]._replace(namespace=database.namespace_of(record.header, txn))
        tables.put(txn, digest, entry, cipher.encrypt(digest, encode(record)))
    return len(batch)


def _require_unused(path: Path) -> None:
    if is_in_use(path / f"{DATABASE}-lock"):
        raise StoreUnavailableError(f"the store {path} is in use by another process; end it first.")


def _remove_drafts(path: Path) -> None:
    for draft in path.glob(f"{DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)
