"""Power cuts: a process works on a store, and its system calls are recorded. From them come disks as a power cut leaves
them: with all that was synced, and any part of the rest. Each is opened, and must hold what flush() acknowledged.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.torture.calls import run_below
from benchmarks.torture.children import quiet, scratch
from benchmarks.torture.disk import Disk, lay_out, read_changes
from benchmarks.torture.figures import Figures
from benchmarks.torture.journal import Expected, Writer, read_journal
from benchmarks.torture.kills import JOURNAL, KEYS, NAMES, Key, change, open_store
from benchmarks.torture.records import get_all, num_wrong, versions
from kamera_agent.errors import StoreKeyError
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.rekey import rekey

CAP_BYTES = 4 << 20
NUM_ROUNDS = 4


def work(folder: Path, seed: int) -> None:
    """Change a store, flush it, close it, and give it another key; again and again."""
    rng, key = random.Random(seed), None
    for number in range(NUM_ROUNDS):
        writer = Writer(open_store(folder, CAP_BYTES, key), folder / JOURNAL)
        for _ in range(4):
            for _ in range(rng.randrange(1, 6)):
                change(writer, rng)
            writer.flush()
        change(writer, rng)
        writer.close()
        new = KEYS[number % 2]
        writer.note("key", number % 2, "begun")
        rekey(folder, None if key is None else (lambda key=key: key), lambda new=new: new)
        writer.note("key", number % 2, "settled")
        key = new


def run(num_cuts: int, seed: int) -> Figures:
    """Cut the power so often, and count `cuts`, `lost`, `wrong` and `unwritable`."""
    quiet()
    # On a real disk: the folder in memory may be on a file system that has no O_DSYNC.
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        root, log = Path(place, "disk"), Path(place, "log")
        root.mkdir()
        run_below(root, __spec__.name, [str(root), str(seed)], log)
        changes = list(read_changes(log.read_bytes()))
    rng, disk, journal = random.Random(seed), Disk(), b""
    cuts = sorted(rng.choices(range(len(changes)), k=num_cuts))
    figures = Figures()
    for number, each in enumerate(changes):
        disk.take(each)
        journal += each.data if Path(each.path).name == JOURNAL and each.what == "W" else b""
        for _ in range(cuts.count(number)):
            with scratch() as folder:
                lay_out(disk.cut(rng), root, folder)
                figures += look(folder, read_journal(journal))
    return figures


def look(folder: Path, lines: list[list[Any]]) -> Figures:
    """What a store is like after a power cut."""
    store = open_with_any(folder, possible_keys(lines))
    if store is None:
        return Figures(cuts=1, lost=1)
    with store:
        found = get_all(store, NAMES)
        problems = store.check().problems
        expected = Expected.after(line for line in lines if line[0] != "key")
    num_settled = sum(version is not None for version in expected.settled.values())
    num_lost = expected.num_lost(versions(found))
    return Figures(cuts=1, settled=num_settled, lost=num_lost, wrong=num_wrong(found), unsound=bool(problems))


def possible_keys(lines: list[list[Any]]) -> list[Key]:
    """The keys that a store may have: the last one that was settled, or one that was begun after it."""
    keys: list[Key] = [None]
    for word, *details in lines:
        if word == "key":
            number, state = details
            keys = [KEYS[number]] if state == "settled" else [*keys, KEYS[number]]
    return keys


def open_with_any(folder: Path, keys: list[Key]) -> LmdbStore | None:
    for key in keys:
        try:
            return open_store(folder, CAP_BYTES, key)
        except StoreKeyError:
            continue
    return None


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
