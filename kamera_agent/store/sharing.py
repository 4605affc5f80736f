"""One writer per folder and process, however many stores are opened over the folder."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.cipher import Cipher
from kamera_agent.store.environment import Environment
from kamera_agent.store.writer import Writer

_OTHER_CAP = "the store %s holds up to %d bytes and keeps that cap, not the %d asked for; `kamera resize` changes it."

_log = logging.getLogger("kamera_agent.store")


@dataclass(eq=False, slots=True)
class _Folder:
    """A folder's writer and its users. The lock is held while the writer starts or stops."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    writer: Writer | None = None
    users: set[object] = field(default_factory=set)


# LMDB forbids a second open of a file in one process, so the open folders are a fact of the process. The process is
# part of the key because a forked child must not wait for a lock that a thread of its parent held at the fork.
_folders: dict[tuple[int, Path], _Folder] = {}


class Lease:
    """The use of a folder's writer, which is shared by all stores of this process over the folder."""

    def __init__(self, folder: _Folder, writer: Writer) -> None:
        self.writer = writer
        self._folder = folder
        self._pid = os.getpid()
        self._user = object()
        folder.users.add(self._user)

    def close(self) -> None:
        """Give the writer back. Its last user waits until everything queued is written. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._folder.lock:
            self._folder.users.discard(self._user)
            if not self._folder.users:
                _stop_writer(self._folder)

    def drop(self) -> None:
        """Give the writer back without waiting: after its last user, it writes the queue and ends by itself.

        For a finalizer. It runs in any thread and at any time, so it must not wait for a folder that opens or closes.
        """
        self._folder.users.discard(self._user)
        if self._pid != os.getpid() or self._folder.lock.locked():
            return
        with self._folder.lock:
            if not self._folder.users and self._folder.writer is not None:
                self._folder.writer.queue.close()


def lend_writer(path: Path, cap_bytes: int | None, queue_bytes: int, repair: bool, cipher: Cipher | None) -> Lease:
    """The use of the writer of a folder, which is started for its first user.

    Waits while another thread opens or closes the same folder; other folders do not wait. Where the folder was deleted
    while it was open, a new one is made; its earlier users keep the deleted one.

    cap_bytes: cap of a store that is made here, None for the default. Where a store has another one, the log says so.
    queue_bytes: used by the first user. repair: whether a damaged database makes way for a new one. cipher: of an
    encrypted store.

    Raises StoreUnavailableError when the folder cannot be opened, and StoreKeyError for another cipher than its own.
    """
    _close_at_exit()
    key = os.getpid(), path
    while True:
        # One step even between threads, so no lock is needed that all folders share.
        folder = _folders.setdefault(key, _Folder())
        with folder.lock:
            if _folders.get(key) is not folder:
                continue
            writer = folder.writer
            if folder.users and writer is not None and writer.database.is_gone:
                del _folders[key]
                continue
            if writer is None or not folder.users:
                # There is still a writer if its last user was dropped, or if Ctrl-C interrupted the last close.
                _stop_writer(folder)
                _abandon_inherited(path)
                writer = folder.writer = _start_writer(path, cap_bytes, queue_bytes, repair, cipher)
            else:
                writer.database.require_cipher(cipher)
            if cap_bytes not in (None, (held := writer.database.cap_bytes)):
                _log.warning(_OTHER_CAP, path, held, cap_bytes)
            return Lease(folder, writer)


@cache
def _close_at_exit() -> None:
    """Have all queues written before the program ends."""
    atexit.register(_close_all)


def _close_all() -> None:
    for (pid, _), folder in list(_folders.items()):
        if pid == os.getpid():
            with folder.lock:
                _stop_writer(folder)


def _stop_writer(folder: _Folder) -> None:
    if folder.writer is not None:
        folder.writer.close()
        folder.writer = None


def _abandon_inherited(path: Path) -> None:
    """Release the folder if it was open at the fork. The parent goes on using it; this process opens its own."""
    for (pid, inherited_path), inherited in list(_folders.items()):
        if inherited_path == path and pid != os.getpid():
            writer = inherited.writer
            if writer is not None:
                writer.database.abandon()
            del _folders[pid, path]


def _start_writer(path: Path, cap_bytes: int | None, queue_bytes: int, repair: bool, cipher: Cipher | None) -> Writer:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"the store folder {path} cannot be created: {error}. Pass a folder on a local disk that this "
            "user may write to."
        ) from error
    database = Environment(path, cap_bytes, repair, cipher)
    try:
        return Writer(database, queue_bytes)
    except BaseException:
        database.close()
        raise
