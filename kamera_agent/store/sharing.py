"""One writer per folder and process, however many stores are opened over the folder."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from kamera_agent.errors import SettingError, StoreUnavailableError
from kamera_agent.store.capacity import default_cap_bytes, map_bytes
from kamera_agent.store.environment import Environment
from kamera_agent.store.writer import Writer


@dataclass(slots=True)
class _Folder:
    """A folder's writer and the number of its users. The lock is held while the writer starts or stops."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    writer: Writer | None = None
    num_users: int = 0


# LMDB forbids a second open of a file in one process, so the open folders are a fact of the process. The process is
# part of the key because a forked child must not wait for a lock that a thread of its parent held at the fork.
_folders: dict[tuple[int, Path], _Folder] = {}


def lend_writer(path: Path, cap_bytes: int | None, queue_bytes: int) -> Writer:
    """The writer of a folder, started for its first user. Give it back with return_writer().

    Waits while another thread opens or closes the same folder; other folders do not wait.

    cap_bytes: None takes the cap of the running writer, or the default. queue_bytes: used by the first user.

    Raises StoreUnavailableError when the folder cannot be opened, and SettingError when this process has it
    open with another cap.
    """
    # One step even between threads, so no lock is needed that all folders share.
    folder = _folders.setdefault((os.getpid(), path), _Folder())
    with folder.lock:
        if folder.num_users == 0:
            # There is still a writer if Ctrl-C interrupted the last close.
            _stop_writer(folder)
            _abandon_inherited(path)
            folder.writer = _start_writer(path, cap_bytes, queue_bytes)
        writer = folder.writer
        assert writer is not None, "a folder with users has a writer"
        if cap_bytes not in (None, writer.cap_bytes):
            raise SettingError(
                f"the store {path} is open in this process with cap_bytes={writer.cap_bytes}, not "
                f"{cap_bytes}; pass the same or None."
            )
        folder.num_users += 1
        return writer


def return_writer(path: Path, pid: int) -> None:
    """Give back the writer that process pid was lent. The last user waits until everything queued is written."""
    if pid != os.getpid():
        return
    folder = _folders[pid, path]
    with folder.lock:
        folder.num_users -= 1
        if folder.num_users == 0:
            _stop_writer(folder)


def _stop_writer(folder: _Folder) -> None:
    if folder.writer is not None:
        folder.writer.close()
        folder.writer = None


def _abandon_inherited(path: Path) -> None:
    """Release the folder if it was open at the fork. The parent goes on using it; this process opens its own."""
    for pid, inherited_path in list(_folders):
        if inherited_path == path and pid != os.getpid():
            writer = _folders.pop((pid, path)).writer
            if writer is not None:
                writer.database.abandon()


def _start_writer(path: Path, cap_bytes: int | None, queue_bytes: int) -> Writer:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"the store folder {path} cannot be created: {error}. Pass a folder on a local disk that this "
            "user may write to."
        ) from error
    if cap_bytes is None:
        cap_bytes = default_cap_bytes(path)
    database = Environment(path, map_bytes(cap_bytes))
    try:
        return Writer(database, cap_bytes, queue_bytes)
    except BaseException:
        database.close()
        raise
