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
from lmdb import verify

from kamera_agent.chunk import FORMAT_VERSION
from kamera_agent.config import MIB
from kamera_agent.errors import StoreClosedError, StoreUnavailableError
from kamera_agent.store.capacity import default_cap_bytes, map_bytes
from kamera_agent.store.gate import Gate
from kamera_agent.store.tables import Tables, Transaction
from kamera_agent.trouble import Trouble

MAX_READERS = 1024
# LMDB has a head of 192 bytes, with the first reader in it, and 64 for each other reader.
LOCK_BYTES = 192 + 64 * (MAX_READERS - 1)
# Records of another format are in another file, which stays as it is.
DATABASE = f"records-{FORMAT_VERSION}.mdb"
OLDER_DATABASES = ("data.mdb",)

T = TypeVar("T")
_log = logging.getLogger("kamera_agent.store")


class Environment:
    """An open LMDB environment, and the only place that begins transactions.

    path: an existing folder. cap_bytes: cap of a store that is made here, None for the default; an existing store has
        its own.

    Raises StoreUnavailableError when the folder cannot be opened or its database is cut short or garbage.
    """

    def __init__(self, path: Path, cap_bytes: int | None) -> None:
        self.path = path
        self._gate = Gate()
        self._closed = False
        self._trouble = Trouble(_log, f"the store {path} cannot be read", f"the store {path} is read again")
        is_new = not (path / DATABASE).exists()
        try:
            _reserve_locks(path)
            self._env = lmdb.open(
                str(path / DATABASE),
                subdir=False,
                mode=0o600,
                max_dbs=len(fields(Tables)),
                max_readers=MAX_READERS,
            )
            self.tables, self._cap_bytes = self._prepare(cap_bytes)
            self._file = self._stat_file()
            if is_new:
                _sync_folder(path)
            _mention_older(path)
        except (OSError, lmdb.Error, verify.VerifyError) as error:
            raise StoreUnavailableError(
                f"the store {path} cannot be opened: {error}. If its {DATABASE} is damaged, delete the folder; "
                "its content can be computed again. Otherwise pass a folder on a local disk that this user may "
                "write to."
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
        stat = (self.path / DATABASE).stat()
        return stat.st_dev, stat.st_ino

    def read(self, query: Callable[[Transaction], T]) -> T | None:
        """Run a query in a read transaction and return its result; None when the medium fails, which is logged once.

        Raises StoreClosedError after close().
        """
        try:
            self._require_present()
            result = self._run(query, write=False)
        except (lmdb.Error, OSError, MemoryError, StoreUnavailableError) as error:
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
            # A process that was killed while it read would keep all pages since then from being used again.
            self._env.reader_check()
            try:
                return self._run(change, write=True)
            except lmdb.MapFullError:
                if not self._fit_map():
                    return None
            except lmdb.Error as error:
                raise StoreUnavailableError(f"writing the store {self.path} failed: {error}.") from error

    def _require_present(self) -> None:
        if self.is_gone:
            raise StoreUnavailableError(
                f"the store folder {self.path} was deleted while it was open: nothing more is read from it or written "
                "to it. Open it again to start a new store there."
            )

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
            with self._gate.shared():
                if self._closed:
                    raise StoreClosedError(f"the store {self.path} was closed; open it again.")
                try:
                    txn = self._env.begin(write=write, buffers=True)
                except lmdb.MapResizedError:
                    txn = None
                if txn is not None:
                    with txn:
                        return body(txn)
            # Another process opened the folder with a larger cap, and the file grew past our map. LMDB forbids resizing
            # a map while a transaction of this process runs.
            self._gate.alone(partial(self._env.set_mapsize, 0))

    def _prepare(self, cap_bytes: int | None) -> tuple[Tables, int]:
        try:
            self._require_whole()
            tables = Tables(*(self._env.open_db(table.name.encode()) for table in fields(Tables)))
            cap_bytes = self._settle_cap(tables, cap_bytes)
            self._env.set_mapsize(map_bytes(cap_bytes))
            return tables, cap_bytes
        except BaseException:
            self._env.close()
            raise

    def _settle_cap(self, tables: Tables, wish: int | None) -> int:
        stored = self._run(tables.cap_bytes, write=False)
        if stored is not None:
            return stored
        if wish is None:
            # A store of an earlier version has records, but no cap.
            wish = max(default_cap_bytes(self.path), self._run(tables.held_bytes, write=False))
        return self._run(partial(tables.claim_cap, wish), write=True)

    def _require_whole(self) -> None:
        """Raise OSError for a file that was cut short: reading a page that it lacks would kill the process."""
        page_bytes, num_pages = self._env.stat()["psize"], self._env.info()["last_pgno"] + 1
        if (self.path / DATABASE).stat().st_size >= num_pages * page_bytes:
            return
        # A whole file may lack pages at its end that are free; only a walk over all tables can tell.
        problems = verify.verify(str(self.path / DATABASE))  # type: ignore[no-untyped-call]
        if problems:
            raise OSError(f"{DATABASE} is cut short ({problems[0]})")


def _reserve_locks(folder: Path) -> None:
    """Make the file of LMDB's locks, with all its blocks: on a full disk, using one that it lacks kills the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    locks = os.open(folder / f"{DATABASE}-lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(locks, 0, LOCK_BYTES)
    finally:
        os.close(locks)


def _sync_folder(folder: Path) -> None:
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
