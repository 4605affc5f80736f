"""One writer per folder and process, however many stores are opened over the folder."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from kamera_agent.errors import SettingError, StoreUnavailableError
from kamera_agent.store.capacity import default_cap_bytes, map_bytes
from kamera_agent.store.environment import Environment
from kamera_agent.store.writer import Writer


@dataclass(slots=True)
class _Loan:
    writer: Writer
    pid: int
    num_users: int = 0


# LMDB forbids a second open of a file in one process, so who has which folder open is a fact of the process.
_lock = threading.Lock()
_loans: dict[Path, _Loan] = {}


def lend_writer(folder: Path, cap_bytes: int | None, queue_bytes: int) -> Writer:
    """The writer of a folder, started for its first user. Give it back with return_writer().

    cap_bytes: None takes the cap of the running writer, or the default. queue_bytes: used by the first user.

    Raises StoreUnavailableError when the folder cannot be opened, and SettingError when this process has it
    open with another cap.
    """
    with _lock:
        loan = _loans.get(folder)
        if loan is not None and loan.pid != os.getpid():
            # Inherited through a fork: the parent goes on using it, this process starts afresh.
            loan.writer.database.abandon()
            loan = None
        if loan is None:
            loan = _loans[folder] = _Loan(_start_writer(folder, cap_bytes, queue_bytes), os.getpid())
        if cap_bytes not in (None, loan.writer.cap_bytes):
            raise SettingError(
                f"the store {folder} is open in this process with cap_bytes={loan.writer.cap_bytes}, not "
                f"{cap_bytes}; pass the same or None."
            )
        loan.num_users += 1
        return loan.writer


def return_writer(folder: Path, pid: int) -> None:
    """Give back what process pid borrowed. The last user waits until everything queued is written."""
    if pid != os.getpid():
        return
    with _lock:
        loan = _loans[folder]
        loan.num_users -= 1
        if loan.num_users == 0:
            del _loans[folder]
            loan.writer.close()


def _start_writer(folder: Path, cap_bytes: int | None, queue_bytes: int) -> Writer:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"the store folder {folder} cannot be made: {error}. Pass a folder on a local disk that this "
            "user may write to."
        ) from error
    if cap_bytes is None:
        cap_bytes = default_cap_bytes(folder)
    return Writer(Environment(folder, map_bytes(cap_bytes)), cap_bytes, queue_bytes)
