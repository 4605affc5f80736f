"""The only file that touches lmdb."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import lmdb
from lmdb import verify

from kamera_agent.chunk import FORMAT_VERSION
from kamera_agent.config import MIB
from kamera_agent.errors import StoreClosedError, StoreUnavailableError
from kamera_agent.store.gate import Gate
from kamera_agent.store.tables import Tables, Transaction

MAX_READERS = 1024
# Records of another format are in another file, which stays as it is.
DATABASE = f"records-{FORMAT_VERSION}.mdb"
OLDER_DATABASES = ("data.mdb",)

T = TypeVar("T")
_log = logging.getLogger("kamera_agent.store")


class Environment:
    """An open LMDB environment, and the only place that begins transactions.

    path: an existing folder. map_size: bytes of address space, the most that the file can grow to.

    Raises StoreUnavailableError when the folder cannot be opened or its database is cut short or garbage.
    """

    def __init__(self, path: Path, map_size: int) -> None:
        self.path = path
        self._gate = Gate()
        self._closed = False
        try:
            # Without metasync, data pages are still synced: a power cut that loses the last meta page loses one batch.
            self._env = lmdb.open(
                str(path / DATABASE),
                subdir=False,
                map_size=map_size,
                mode=0o600,
                metasync=False,
                max_dbs=len(fields(Tables)),
                max_readers=MAX_READERS,
            )
            self.tables = self._prepare()
            self._file = self._stat_file()
            _mention_older(path)
        except (OSError, lmdb.Error, verify.VerifyError) as error:
            raise StoreUnavailableError(
                f"the store {path} cannot be opened: {error}. If its {DATABASE} is damaged, delete the folder; "
                "its content can be computed again. Otherwise pass a folder on a local disk that this user may "
                "write to."
            ) from error

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
        """Run a query in a read transaction and return its result; None, with a warning, when the medium fails.

        Raises StoreClosedError after close().
        """
        try:
            return self._run(query, write=False)
        except lmdb.Error as error:
            _log.warning("reading the store %s failed: %s", self.path, error)
            return None

    def write(self, change: Callable[[Transaction], T]) -> T | None:
        """Make a change in one write transaction and sync it; None when the map is full and nothing changed.

        Any other failure also leaves the data unchanged, and is raised. One thread at a time.
        """
        try:
            return self._run(change, write=True)
        except lmdb.MapFullError:
            return None

    def close(self) -> None:
        """Release the files once no transaction runs."""
        self._gate.alone(self._shut)

    def _shut(self) -> None:
        self._closed = True
        self._env.close()

    def abandon(self) -> None:
        """Release an environment that a parent process opened. Its files are not touched."""
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

    def _prepare(self) -> Tables:
        try:
            self._require_whole()
            self._env.reader_check()
            return Tables(*(self._env.open_db(table.name.encode()) for table in fields(Tables)))
        except BaseException:
            self._env.close()
            raise

    def _require_whole(self) -> None:
        """Raise OSError for a file that was cut short: reading a page that it lacks would kill the process."""
        page_bytes, num_pages = self._env.stat()["psize"], self._env.info()["last_pgno"] + 1
        if (self.path / DATABASE).stat().st_size >= num_pages * page_bytes:
            return
        # A whole file may lack pages at its end that are free; only a walk over all tables can tell.
        problems = verify.verify(str(self.path / DATABASE))  # type: ignore[no-untyped-call]
        if problems:
            raise OSError(f"{DATABASE} is cut short ({problems[0]})")


def _mention_older(folder: Path) -> None:
    for older in (folder / name for name in OLDER_DATABASES):
        if older.is_file():
            _log.warning(
                "%s holds chunks in an older format, which this version does not read; they are computed again. Delete "
                "the file to free %d MiB.",
                older,
                older.stat().st_size // MIB,
            )
