"""A crowd on one folder: processes with several threads each put, read, delete, check, resize, fork and are killed.

Each process wishes another cap. Nobody may wait for ever or be served a wrong byte, and the file must keep to the
largest cap that the store had.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from benchmarks.torture.children import CONTEXT, quiet, scratch
from benchmarks.torture.figures import Figures
from benchmarks.torture.records import get_all, make_key, num_wrong, versioned_record
from kamera_agent.config import MIB
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.capacity import map_bytes
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

NAMES = [f"r{i}{patch}" for i in range(1500) for patch in ("", "/p", "/q")]
CAPS = [44 * MIB, 48 * MIB, 56 * MIB]
KEY = bytes(range(32))
# A thread that does nothing for so long hangs.
PATIENCE_S = 60.0
WRONG_EXIT, HANGING_EXIT = 3, 4


class Member:
    """One process of the crowd, and when each of its threads last did something."""

    def __init__(self, folder: Path, seed: int, num_threads: int, seconds: float) -> None:
        self._beats: list[Synchronized[float]] = [CONTEXT.Value("d", time.monotonic()) for _ in range(num_threads)]
        self._process: ForkServerProcess = CONTEXT.Process(target=join_crowd, args=(folder, seed, seconds, self._beats))
        self._process.start()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def end(self) -> Figures:
        """Wait for the process, unless it hangs. Counts how it ended, if not by itself and not by a kill."""
        while self._process.is_alive():
            self._process.join(1.0)
            if time.monotonic() - min(beat.value for beat in self._beats) > PATIENCE_S:
                self.kill()
                return Figures(hangs=1)
        names = {0: (), -signal.SIGKILL: (), WRONG_EXIT: ("load_wrong",), HANGING_EXIT: ("hangs",)}
        return Figures(names.get(self._process.exitcode, ("deaths",)))


def join_crowd(folder: Path, seed: int, seconds: float, beats: list[Any]) -> None:
    """Use the store for so long. Exits with WRONG_EXIT when it serves a record that is not genuine."""
    quiet()
    end = time.monotonic() + seconds
    store = LmdbStore(folder, CAPS[seed % len(CAPS)], queue_bytes=500_000, key=lambda: KEY)
    threads = [
        threading.Thread(target=act, args=(folder, store, random.Random(f"{seed} {number}"), end, beat))
        for number, beat in enumerate(beats)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


def act(folder: Path, store: LmdbStore, rng: random.Random, end: float, beat: Any) -> None:
    """What one thread does."""

    def put() -> None:
        store.put_many(versioned_record(rng.choice(NAMES), rng.randrange(1000)) for _ in range(rng.randrange(6)))

    def get() -> None:
        if num_wrong(get_all(store, rng.sample(NAMES, 10))):
            os._exit(WRONG_EXIT)

    def delete() -> None:
        store.delete([make_key(rng.choice(NAMES))])

    def check() -> None:
        if any(store.check().problems):
            os._exit(WRONG_EXIT)

    def resize() -> None:
        store.resize(rng.choice(CAPS))

    def fork() -> None:
        if (child := os.fork()) == 0:
            use_in_fork(folder, rng.randrange(1000))
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            os._exit(HANGING_EXIT if code == -signal.SIGALRM else WRONG_EXIT)

    actions = {put: 300, get: 500, delete: 50, store.flush: 50, store.headers: 1, check: 0.3, resize: 1, fork: 1}
    while time.monotonic() < end:
        rng.choices(list(actions), list(actions.values()))[0]()
        beat.value = time.monotonic()


def use_in_fork(folder: Path, version: int) -> None:
    """What a forked child does, in place of all else."""
    code = WRONG_EXIT
    try:
        signal.alarm(round(PATIENCE_S / 2))
        with LmdbStore(folder, key=lambda: KEY) as store:
            store.put_many([versioned_record(NAMES[version % len(NAMES)], version)])
            code = WRONG_EXIT if num_wrong(get_all(store, NAMES[:50])) else 0
    except StoreUnavailableError:
        code = 0  # A thread of the parent was in LMDB all the time that a fork waits.
    finally:
        os._exit(code)


def run(seconds: float, seed: int, num_processes: int = 8, num_threads: int = 4) -> Figures:
    """Let a crowd work for so long. Counts `load_wrong`, `hangs`, `deaths`, and `oversize`: files above their bound."""
    quiet()
    rng, figures, seeds = random.Random(seed), Figures(), iter(range(seed * 1000, 1 << 60))
    with scratch() as folder:
        crowd = [Member(folder, next(seeds), num_threads, seconds) for _ in range(num_processes)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(rng.uniform(0, 0.6))
            number = rng.randrange(num_processes)
            if crowd[number].is_alive and rng.random() < 0.5:
                crowd[number].kill()
                figures["load_kills"] += 1
            if not crowd[number].is_alive:
                figures += crowd[number].end()
                crowd[number] = Member(folder, next(seeds), num_threads, max(0.0, end - time.monotonic()))
            figures["oversize"] += (folder / DATABASE).stat().st_size > map_bytes(max(CAPS))
        for member in crowd:
            figures += member.end()
        with LmdbStore(folder, key=lambda: KEY) as store:
            figures["load_wrong"] += num_wrong(get_all(store, NAMES)) + len(store.check().problems)
            figures["load_records"] += store.stats().num_records
    return figures
