"""Whether a database can be opened. A damaged one could end the process that LMDB maps it into."""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmdb import verify

from kamera_agent.config import MIB
from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.tree import sum_of_tree

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment] # Windows: every file that is not sealed is read

_log = logging.getLogger("kamera_agent.store")


def find_faults(database: Path) -> list[str]:
    """The faults in the structure of a database that nobody writes to. Raises OSError.

    It is read as bytes, without LMDB, so nothing in it can end the process. Values are not read; they have checksums.
    """
    try:
        return [str(fault) for fault in verify.verify(str(database))]  # type: ignore[no-untyped-call]
    except (verify.VerifyError, struct.error, ArithmeticError, LookupError, ValueError, RecursionError) as error:
        return [str(error) or type(error).__name__]


class Seal:
    """A file beside a database, which says what that was like when it was last closed in good order.

    A large database that is as its seal says is not inspected before it is opened: no page that LMDB trusts has
    changed. Whoever opens one breaks its seal, so one whose process was killed has none.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._seal = database.with_suffix(".seal")

    @property
    def exists(self) -> bool:
        """Whether the database was sealed and not opened since, be it whole or not."""
        return self._seal.exists()

    @property
    def is_whole(self) -> bool:
        """Whether the database is as it was when it was sealed."""
        try:
            return self._seal.read_text("utf-8") == self._facts()
        except (OSError, UnicodeDecodeError, CorruptRecordError):
            return False

    def set(self) -> None:
        """Seal the database as it is now, closed. Raises OSError, and CorruptRecordError for a damaged one."""
        draft = self._seal.with_suffix(f".seal-{os.getpid()}")
        draft.write_text(self._facts(), "utf-8")
        os.replace(draft, self._seal)

    def break_up(self) -> None:
        """Remove the seal. Raises OSError."""
        self._seal.unlink(missing_ok=True)

    def _facts(self) -> str:
        facts = self._database.stat()
        return json.dumps([facts.st_ino, facts.st_size, facts.st_mtime_ns, sum_of_tree(self._database)])


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Keep other processes from opening the database meanwhile."""
    if fcntl is None:
        yield
        return
    opened = os.open(database.with_suffix(".opening"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # No flock(), which a forked child would hold on to.
        fcntl.lockf(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def is_in_use(locks: Path) -> bool:
    """Whether another process has the database of a lock file open: LMDB then holds a lock on the first byte."""
    if fcntl is None:
        return False
    try:
        opened = os.open(locks, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    except OSError:
        return True
    finally:
        os.close(opened)
    return False


def move_aside(database: Path, fault: str) -> None:
    """Keep a damaged database under another name, in place of an earlier one, and say so. Raises OSError."""
    kept = database.with_suffix(".damaged")
    os.replace(database, kept)
    _log.warning(
        "the store %s was damaged (%s) and is begun anew; its chunks are computed again. The damaged file is kept as "
        "%s; delete it to free %d MiB.",
        database.parent,
        fault,
        kept,
        kept.stat().st_size // MIB,
    )
