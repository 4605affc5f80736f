"""Failing system calls: each call of a store on its files fails, once or for good, with every error it may have.

Whatever fails, a process gets genuine records or misses, its user is told once, and the store is written again as soon
as nothing fails any more.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import json
import logging
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from typing import NamedTuple, Protocol

from benchmarks.torture.calls import run_below
from benchmarks.torture.children import scratch
from benchmarks.torture.figures import Figures
from benchmarks.torture.records import get_all, num_wrong, versioned_record, versions
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.lmdb_store import LmdbStore

CAP_BYTES = 1 << 20
KEY = bytes(range(32))
NAMES = [f"r{i}{patch}" for i in range(4) for patch in ("", "/p")]
FOR_EVER = 1 << 40
HANGS_AFTER_S = 30
FAILURES = ("failed_answers", "wrong", "lost", "unwritable", "unsaid", "repeated")
SHORT = -1
# By kind: open, read, write, sync, truncate or allocate, (re)name, unlink, map, allocate memory.
ERRORS = {
    "o": [errno.EMFILE, errno.EIO, errno.ENOSPC],
    "r": [errno.EIO, SHORT],
    "w": [errno.EIO, errno.ENOSPC, SHORT],
    "s": [errno.EIO, errno.ENOSPC],
    "t": [errno.EIO, errno.ENOSPC],
    "n": [errno.EIO, errno.ENOSPC],
    "u": [errno.EIO],
    "m": [errno.ENOMEM],
    "a": [errno.ENOMEM],
}


class Fault(NamedTuple):
    """Which calls fail in which phase: from a number on, so many, with an error."""

    phase: str
    first: int
    count: int
    error: int
    is_encrypted: bool


class Calls:
    """The functions of calls.c in this process. kinds: of the calls of the last phase that was armed, in order."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.torture_kind.restype = ctypes.c_char
        self.kinds = ""

    @contextmanager
    def failing(self, fault: Fault, phase: str) -> Iterator[None]:
        if fault.phase != phase:
            yield
            return
        self._library.torture_arm(ctypes.c_long(fault.first), ctypes.c_long(fault.count), fault.error)
        try:
            yield
        finally:
            self._library.torture_disarm()
            count = self._library.torture_count()
            self.kinds = "".join(self._library.torture_kind(ctypes.c_long(i)).decode() for i in range(count))


class Said(logging.Handler):
    """The kinds of warnings that were said."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings.append(record.getMessage().partition(":")[0])


class Subject(Protocol):
    """Something that uses a store in a folder while calls fail."""

    phases: tuple[str, ...]

    def meet(self, fault: Fault, calls: Calls) -> Figures:
        """Use it once. Raises StoreUnavailableError where it cannot be opened; any other exception is a failure."""

    def look_back(self, fault: Fault) -> Figures:
        """What is amiss afterwards, when no call fails."""


class StoreSubject:
    """A process that opens a store, reads, writes, checks and closes it. Every second store is encrypted."""

    phases = ("opening", "use", "closing")

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def meet(self, fault: Fault, calls: Calls) -> Figures:
        with self._open(fault) as store:
            store.put_many(versioned_record(name, 1) for name in NAMES)
        figures = Figures()
        with calls.failing(fault, "opening"):
            store = self._open(fault)
        with calls.failing(fault, "use"):
            store.put_many(versioned_record(name, 2) for name in ("new", "new/p"))
            store.flush()
            figures["wrong"] += num_wrong(get_all(store, [*NAMES, "new", "new/p"]))
            store.headers()
            store.check()
            figures["failed_writes"] += store.stats().failed_writes
        figures["unwritable"] += not is_written(store, "then")
        with calls.failing(fault, "closing"):
            store.close()
        return figures

    def look_back(self, fault: Fault) -> Figures:
        with self._open(fault) as store:
            found = get_all(store, NAMES)
            return Figures(
                lost=len(NAMES) - len(found), wrong=num_wrong(found), unwritable=not is_written(store, "again")
            )

    def _open(self, fault: Fault) -> LmdbStore:
        return LmdbStore(self._folder, CAP_BYTES, key=(lambda: KEY) if fault.is_encrypted else None)


def is_written(store: LmdbStore, name: str) -> bool:
    store.put_many([versioned_record(name, 3)])
    store.flush()
    return versions(get_all(store, [name])) == {name: 3}


def faults_of(subject: Subject, folder: Path, seed: int) -> list[Fault]:
    """Every call of every phase, with every error, once and for ever, in an order that follows from the seed."""
    faults, calls = list[Fault](), Calls()
    for phase in subject.phases:
        for is_encrypted in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            subject.meet(Fault(phase, FOR_EVER, 0, 0, is_encrypted), calls)
            for number, kind in enumerate(calls.kinds):
                for error in ERRORS[kind]:
                    faults += [Fault(phase, number, count, error, is_encrypted) for count in (1, FOR_EVER)]
    random.Random(seed).shuffle(faults)
    return faults


def meet_all(subject: Subject, folder: Path, seed: int, start: int, stop: int) -> None:
    """Meet the faults of these numbers, and print the figures of each on a line."""
    logger = logging.getLogger("kamera_agent")
    logger.propagate = False
    logger.addHandler(said := Said())
    for fault in faults_of(subject, folder, seed)[start:stop]:
        faulthandler.dump_traceback_later(HANGS_AFTER_S - 1)
        signal.alarm(HANGS_AFTER_S)
        shutil.rmtree(folder, ignore_errors=True)
        said.warnings.clear()
        print(json.dumps(meet(subject, fault, said)), flush=True)


def meet(subject: Subject, fault: Fault, said: Said) -> Figures:
    figures, calls = Figures(faults=1), Calls()
    try:
        figures += subject.meet(fault, calls)
    except StoreUnavailableError:
        figures["refused"] += 1
    except Exception as error:  # noqa: BLE001 - that is what is counted
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        figures["failed_answers"] += 1
    figures["unsaid"] += figures["failed_writes"] > 0 and not said.warnings
    figures["repeated"] += len(said.warnings) - len(set(said.warnings))
    figures += subject.look_back(fault)
    if any(figures[name] for name in FAILURES):
        print(f"{fault} of {calls.kinds[fault.first : fault.first + 1]!r}: {+figures}", file=sys.stderr)
    return figures


def run(module: str, count: int, seed: int) -> Figures:
    """Have a module meet so many faults, or all there are. Counts `faults`, `failed_answers`, `wrong` and others."""
    figures, start = Figures(), 0
    while start < count:
        with scratch() as folder:
            root = folder / "disk"
            root.mkdir()
            try:
                lines, died = run_below(root, module, [str(root), str(seed), str(start), str(count)]), False
            except CalledProcessError as error:
                if error.returncode > 0:  # Not by a signal: it is the torture that failed.
                    raise
                lines, died = error.stdout, True
                figures["hangs" if error.returncode == -signal.SIGALRM else "deaths"] += 1
        for line in lines.splitlines():
            figures += Figures(json.loads(line))
        start += lines.count("\n") + died
        if not died:
            break
    return figures


def main(make_subject: Callable[[Path], Subject]) -> None:
    """What the process does whose calls fail."""
    folder = Path(sys.argv[1], "store")
    meet_all(make_subject(folder), folder, *map(int, sys.argv[2:]))


if __name__ == "__main__":
    main(StoreSubject)
