"""The only file that touches lmdb."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb
from blake3 import blake3

from kamera_agent.chunk import FORMAT_VERSION, Header
from kamera_agent.config import MIB
from kamera_agent.errors import (
    CorruptRecordError,
    StoreClosedError,
    StoreDamagedError,
    StoreKeyError,
    StoreUnavailableError,
)
from kamera_agent.store.capacity import default_cap_bytes, map_bytes
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.entry import NAME_BYTES
from kamera_agent.store.gate import Gate
from kamera_agent.store.inspection import Seal, alone, find_faults, is_in_use, move_aside
from kamera_agent.store.tables import Tables
from kamera_agent.store.transaction import Transaction
from kamera_agent.trouble import Trouble

MAX_READERS = 1024
# LMDB has a head of 192 bytes, with the first reader in it, and 64 for each other reader.
LOCK_BYTES = 192 + 64 * (MAX_READERS - 1)
# Records of another format are in another file, which stays as it is.
DATABASE = f"records-{FORMAT_VERSION}.mdb"
# Inspecting that much takes a third of a second.
INSPECTED_BYTES = 1024 * MIB
OLDER_DATABASES = ("data.mdb", "records-2.mdb", "records-3.mdb")

# Errors of LMDB that are about the content of the database, not about memory or the disk.
DAMAGES = (
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.NotFoundError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)

T = TypeVar("T")
_log = logging.getLogger("kamera_agent.store")


class Environment:
    """An open LMDB environment, and the only place that begins transactions.

    path: an existing folder. cap_bytes: cap of a store that is made here, None for the default; an existing store has
        its own.
    repair: whether a damaged database is moved aside, and a new one begun. cipher: of an encrypted store.

    faults: those of a damaged database that was moved aside for this one. They are found before LMDB opens it, where it
        was not closed in good order or was changed since. What happens to the file of an open store cannot be found
        before it is read: whoever cuts it short ends the process.

    Raises StoreUnavailableError when the folder cannot be opened, StoreDamagedError when it must not be repaired, and
    StoreKeyError for another cipher than that of the store.
    """

    def __init__(self, path: Path, cap_bytes: int | None, repair: bool = True, cipher: Cipher | None = None) -> None:
        self.path = path
        self.cipher = cipher
        self._repair = repair
        self._gate = Gate()
        self._closed, self._is_sound = False, True
        self._is_given_up = False
        self._cap_bytes = 0
        self._database = path / DATABASE
        self._seal = Seal(self._database)
        self.tables = Tables.unopened()
        self._trouble = Trouble(_log, f"the store {path} cannot be read", f"the store {path} is read again")
        try:
            with alone(self._database):
                is_new = self._is_new
                try:
                    self._open_whole(cap_bytes)
                except (lmdb.Error, CorruptRecordError):
                    # Damaged though it was sealed. Now the seal is broken, so it is inspected.
                    self._open_whole(cap_bytes)
            self._file = self._stat_file()
            if is_new or self.faults:
                sync_folder(path)
            _mention_older(path)
        except (OSError, MemoryError, lmdb.Error, CorruptRecordError) as error:
            raise StoreUnavailableError(
                f"the store {path} cannot be opened: {error}. Pass a folder on a local disk that has room and that "
                "this user may write to."
            ) from error

    @property
    def cap_bytes(self) -> int:
        """The cap that the store has now; the last one known if it cannot be read."""
        cap_bytes = self.read(self.tables.cap_bytes)
        self._cap_bytes = self._cap_bytes if cap_bytes is None else cap_bytes
        return self._cap_bytes

    @property
    def is_gone(self) -> bool:
        """Whether the open file is no longer in the folder, because somebody deleted or replaced it."""
        try:
            return self._stat_file() != self._file
        except OSError:
            return True

    def _stat_file(self) -> tuple[int, int]:
        stat = self._database.stat()
        return stat.st_dev, stat.st_ino

    def read(self, query: Callable[[Transaction], T]) -> T | None:
        """Run a query in a read transaction and return its result; None when the medium fails, which is logged once.

        Raises StoreClosedError after close().
        """
        try:
            self._require_present()
            result = self._run(query, write=False)
        except (lmdb.Error, OSError, MemoryError, StoreUnavailableError, CorruptRecordError) as error:
            self._is_sound = False
            self._trouble.failed(StoreUnavailableError(f"{error}") if isinstance(error, lmdb.Error) else error)
            return None
        self._trouble.worked()
        return result

    def write(self, change: Callable[[Transaction], T]) -> T | None:
        """Make a change in one write transaction and sync it; None when the map is full and nothing changed.

        After any other failure the data is unchanged, too. Raises StoreUnavailableError when the medium fails, and
        StoreClosedError after close().
        """
        self._require_present()
        while True:
            try:
                return self._run(change, write=True)
            except lmdb.MapFullError:
                if not self._fit_map():
                    return None
            except CorruptRecordError:
                self._is_sound = False
                raise
            except (lmdb.Error, OSError) as error:
                self._is_sound = False
                with suppress(lmdb.Error, OSError):  # It finds out whether LMDB has given the database up.
                    self._run(lambda _: None, write=False)
                raise StoreUnavailableError(f"writing the store {self.path} failed: {error}.") from error

    def _require_present(self) -> None:
        if self.is_gone:
            raise StoreUnavailableError(
                f"the store folder {self.path} was deleted while it was open: nothing more is read from it or written "
                "to it. Open it again to start a new store there."
            )

    def name_of(self, namespace: str) -> bytes:
        """What stands for a namespace in entries. In an encrypted store, only who has the key can tell it."""
        digest = blake3(namespace.encode("utf-8", "surrogatepass")).digest()
        return (self.cipher.name(digest) if self.cipher else digest)[:NAME_BYTES]

    def namespace_of(self, header: Header, txn: Transaction) -> bytes:
        """The tag of the namespace of a record. A patch has the one of its base, once that is written."""
        base = self.tables.entry(txn, header.base) if header.base else None
        return base.namespace if base else self.name_of(header.key.namespace)

    def require_cipher(self, cipher: Cipher | None) -> None:
        """Raise StoreKeyError for another cipher than that of the store."""
        self._compare(cipher, self._run(self.tables.key_check, write=False))

    def _compare(self, cipher: Cipher | None, check: bytes | None) -> None:
        if cipher is None and check is not None:
            raise StoreKeyError(
                f"the store {self.path} is encrypted; pass its key as encryption_key, or to a command as --key."
            )
        if cipher is not None and check is None:
            raise StoreKeyError(f"the store {self.path} is not encrypted; `kamera rekey` encrypts it.")
        if cipher is not None and check != cipher.check:
            raise StoreKeyError(f"the store {self.path} is encrypted with another key.")

    def _fit_map(self) -> bool:
        """Whether the map was smaller than the cap asks for, because the cap was raised, and has been enlarged."""
        map_size = map_bytes(self.cap_bytes)
        if self._env.info()["map_size"] >= map_size:
            return False
        self._gate.alone(partial(self._env.set_mapsize, map_size))
        return True

    def close(self) -> None:
        """Release the files once no transaction runs."""
        self._gate.alone(self._shut)

    def _shut(self) -> None:
        self._closed = True
        self._env.close()
        if self._is_sound and not self.is_gone:
            with suppress(OSError, CorruptRecordError):  # Then it is inspected the next time.
                self._seal.set()

    def abandon(self) -> None:
        """Release an environment that a parent process opened. Its files are not touched.

        Raises StoreUnavailableError if a thread of the parent was inside LMDB at the fork: closing would wait for ever
        for the locks it held.
        """
        if not self._gate.is_whole:
            raise StoreUnavailableError(
                f"the store {self.path} was in use when process {os.getpid()} was forked; start the process anew, or "
                "fork while nothing is written."
            )
        self._env.close()

    def _run(self, body: Callable[[Transaction], T], write: bool) -> T:
        while True:
            if self._is_given_up:
                self._gate.alone(self._renew)
            with self._gate.shared(), suppress(lmdb.MapResizedError):
                if self._closed:
                    raise StoreClosedError(f"the store {self.path} was closed; open it again.")
                return self._transact(body, write)
            # Another process opened the folder with a larger cap, and the file grew past our map. LMDB forbids resizing
            # a map while a transaction of this process runs.
            self._gate.alone(partial(self._env.set_mapsize, 0))

    def _run_alone(self, body: Callable[[Transaction], T], write: bool) -> T:
        """Run a transaction while the database is opened, and nobody else can begin one."""
        return self._with_room(partial(self._transact, body, write))

    def _with_room(self, action: Callable[[], T]) -> T:
        """Do what begins a transaction; again, with a larger map, where another process grows the file meanwhile."""
        while True:
            with suppress(lmdb.MapResizedError):
                return action()
            self._env.set_mapsize(0)

    def _transact(self, body: Callable[[Transaction], T], write: bool) -> T:
        try:
            if write:
                # A process that was killed while it read would keep all pages since then from use.
                self._env.reader_check()
            txn = self._env.begin(write=write, buffers=True)
        except lmdb.PanicError:
            self._is_given_up = True
            raise
        with txn:
            return body(txn)

    def _renew(self) -> None:
        """Open the database again: LMDB gives it up once a meta page could not be written.

        Raises OSError, lmdb.Error, CorruptRecordError, and what the constructor raises.
        """
        if self._is_given_up and not self._closed:
            self._env.close()
            with alone(self._database):
                self._open_whole(None)
            self._file = self._stat_file()
            self._is_given_up = False

    def find_faults(self) -> list[str]:
        """The faults in the structure of the database. Nobody writes meanwhile. Raises what write() raises."""
        return self.write(lambda _: find_faults(self._database)) or []

    def _open_whole(self, cap_bytes: int | None) -> None:
        """Open the database, or a new one in place of a damaged one."""
        locks = self.path / f"{DATABASE}-lock"
        is_trusted = self._is_new or is_in_use(locks) or self._is_sealed
        self.faults = [] if is_trusted else find_faults(self._database)
        if not self.faults:
            self._open()
            self.faults = [] if is_trusted else self._contradictions()
            if self.faults:
                self._env.close()
        if self.faults:
            if not self._repair:
                raise StoreDamagedError(
                    f"the store {self.path} is damaged: {self.faults[0]}. `kamera verify --repair` moves it aside and "
                    "begins a new one."
                )
            move_aside(self._database, self.faults[0])
            self._open()
        self._cap_bytes = self._settle(cap_bytes)

    @property
    def _is_new(self) -> bool:
        """Whether there is no database yet, or one whose process was killed before it wrote the first page."""
        return not self._database.exists() or (self._database.stat().st_size == 0 and not self._seal.exists)

    @property
    def _is_sealed(self) -> bool:
        """Whether inspecting the database takes long, and it is as it was closed."""
        return self._database.stat().st_size > INSPECTED_BYTES and self._seal.is_whole

    def _open(self) -> None:
        self._seal.break_up()
        _reserve_locks(self.path)
        self._env = lmdb.open(
            str(self._database), subdir=False, mode=0o600, max_dbs=len(fields(Tables)), max_readers=MAX_READERS
        )
        try:
            self._fill_up()
            # In place, because queries that wait hold on to the tables.
            for table in fields(Tables):
                handle = self._with_room(partial(self._env.open_db, table.name.encode()))
                setattr(self.tables, table.name, handle)
        except BaseException:
            self._env.close()
            raise

    def _fill_up(self) -> None:
        """Let what was cut off the end of the file be zeros: checksums find these, while missing pages are fatal."""
        size = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        held = self._database.stat().st_size
        if held < size and hasattr(os, "posix_fallocate"):
            opened = os.open(self._database, os.O_RDWR)
            try:
                os.posix_fallocate(opened, held, size - held)
            finally:
                os.close(opened)

    def _contradictions(self) -> list[str]:
        try:
            return self._run_alone(self.tables.problems, write=False)
        except (*DAMAGES, CorruptRecordError) as error:
            return [str(error)]
        except BaseException:
            self._env.close()
            raise

    def _settle(self, wish: int | None) -> int:
        """Take the cap of the store, which is the wish in a new one, and make the map fit it."""
        try:
            cap_bytes = self._run_alone(self.tables.cap_bytes, write=False)
            if cap_bytes is None:
                if wish is None:
                    # A store of an earlier version has records, but no cap.
                    wish = max(default_cap_bytes(self.path), self._run_alone(self.tables.held_bytes, write=False))
                check = None if self.cipher is None else self.cipher.check
                cap_bytes = self._run_alone(partial(self.tables.claim, wish, check), write=True)
            self._compare(self.cipher, self._run_alone(self.tables.key_check, write=False))
            self._env.set_mapsize(map_bytes(cap_bytes))
            return cap_bytes
        except BaseException:
            self._env.close()
            raise


def _reserve_locks(folder: Path) -> None:
    """Make the file of LMDB's locks, with all its blocks: on a full disk, using one that it lacks kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    locks = os.open(folder / f"{DATABASE}-lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(locks, 0, LOCK_BYTES)
    finally:
        os.close(locks)


def sync_folder(folder: Path) -> None:
    """Make the names of the files in a folder, and its own, durable."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows syncs no folders.
        return
    for each in (folder, folder.parent):
        with suppress(PermissionError):  # It may be closed to us, but for going through.
            opened = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def _mention_older(folder: Path) -> None:
    for older in (folder / name for name in OLDER_DATABASES):
        if older.is_file():
            _log.warning(
                "%s holds chunks in an older format, which this version does not read; they are computed again. Delete "
                "the file to free %d MiB.",
                older,
                older.stat().st_size // MIB,
            )
