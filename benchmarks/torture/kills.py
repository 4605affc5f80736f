"""Kills: a process is ended by SIGKILL while it writes, evicts, repairs, changes the key of a store, or closes it.

Afterwards what was settled is there (unless it was evicted: then in order, and with the store full), every record is
genuine, the tables agree, and the store takes new records. Every second store is encrypted.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.torture.children import CONTEXT, quiet, scratch
from benchmarks.torture.figures import Figures
from benchmarks.torture.journal import Expected, Writer, read_journal
from benchmarks.torture.records import get_all, num_wrong, versioned_record, versions
from kamera_agent.chunk import Record
from kamera_agent.errors import StoreKeyError
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.eviction import POLICIES
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.rekey import rekey

JOURNAL = "journal"
NAMES = [f"r{i}{patch}" for i in range(12) for patch in ("", "/p", "/q")]
AMPLE_BYTES, TIGHT_BYTES = 16 << 20, 400_000
KEYS = [bytes(32), bytes(range(32))]
PAGE, MAX_PUTS = 4096, 2000

Key = bytes | None


def open_store(folder: Path, cap_bytes: int, key: Key) -> LmdbStore:
    return LmdbStore(folder, cap_bytes, queue_bytes=200_000, key=None if key is None else lambda: key)


def change(writer: Writer, rng: random.Random) -> None:
    """A put or, now and then, a delete."""
    if rng.random() < 0.15:
        writer.delete(rng.choice(NAMES))
    else:
        writer.put(rng.choice(NAMES), rng.randrange(1000))


def write(folder: Path, key: Key, rng: random.Random, ready: Connection) -> None:
    writer = Writer(open_store(folder, AMPLE_BYTES, key), folder / JOURNAL)
    ready.send(None)
    while True:
        for _ in range(rng.randrange(1, 8)):
            change(writer, rng)
        writer.flush()


def evict(folder: Path, key: Key, rng: random.Random, ready: Connection) -> None:
    store = open_store(folder, TIGHT_BYTES, key)
    store.set_policy(rng.choice(POLICIES))
    writer = Writer(store, folder / JOURNAL)
    ready.send(None)
    for number in range(MAX_PUTS):
        writer.put(*nth_put(number))
        if rng.random() < 0.2:
            writer.flush()


def repair(folder: Path, key: Key, _: random.Random, ready: Connection) -> None:
    ready.send(None)
    open_store(folder, AMPLE_BYTES, key).check()


def change_key(folder: Path, key: Key, _: random.Random, ready: Connection) -> None:
    ready.send(None)
    rekey(folder, None if key is None else lambda: key, lambda: KEYS[0])


def close(folder: Path, key: Key, rng: random.Random, ready: Connection) -> None:
    writer = Writer(open_store(folder, AMPLE_BYTES, key), folder / JOURNAL)
    for _ in range(rng.randrange(1, 40)):
        change(writer, rng)
    ready.send(None)
    writer.close()


# What is done, and the most seconds until the kill.
PHASES: dict[str, tuple[Callable[[Path, Key, random.Random, Connection], None], float]] = {
    "write": (write, 0.12),
    "evict": (evict, 0.12),
    "repair": (repair, 0.08),
    "migrate": (change_key, 0.12),
    "close": (close, 0.03),
}


def run(num_kills: int, seed: int) -> Figures:
    """Kill so many processes, and count `kills`, `lost`, `wrong` and `unwritable`."""
    quiet()
    figures = Figures()
    for number in range(num_kills):
        with scratch() as folder:
            figures += kill_once(folder, random.Random(f"{seed} {number}"), number)
    return figures


def kill_once(folder: Path, rng: random.Random, number: int) -> Figures:
    phase = list(PHASES)[number % len(PHASES)]
    key = KEYS[1] if rng.random() < 0.5 else None
    before = prepare(folder, phase, key, rng)
    figures = Figures(kills=1, in_time=kill(folder, phase, key, rng))
    with open_store(folder, AMPLE_BYTES, key_now(folder, key) if phase == "migrate" else key) as store:
        found = get_all(store, [nth_put(i)[0] for i in range(MAX_PUTS)] if phase == "evict" else NAMES)
        problems, new = store.check().problems, versioned_record("new", number)
        store.put_many([new])
        store.flush()
        # Where the others are used more often, some policies have a new record go first.
        is_there = phase == "evict" or versions(get_all(store, ["new"])) == {"new": number}
        is_written = is_there and store.stats().failed_writes == 0
    journal = folder / JOURNAL
    lines = read_journal(journal.read_bytes()) if journal.exists() else []
    if phase in ("repair", "migrate"):
        figures["lost"] += sum(versions(found).get(name) != version for name, version in before.items())
    elif phase == "evict":
        figures["lost"] += num_evicted_wrongly(lines, found)
    else:
        figures["lost"] += Expected.after(lines).num_lost(versions(found))
    figures["wrong"] += num_wrong(found)
    figures["unwritable"] += not is_written
    figures["unsound"] += bool(problems) and phase != "repair"
    return figures


def num_evicted_wrongly(lines: list[list[Any]], found: Mapping[str, Record]) -> int:
    """How much is amiss where each put has a new name: the last ones must be there, and as many as fit."""
    puts, num_settled = list[str](), 0
    for word, *details in lines:
        if word == "put":
            puts.append(details[0])
        else:
            num_settled = len(puts)
    there = [name for name in puts if name in found]
    if not there:
        return num_settled
    first = puts.index(there[0])
    stop = first + len(there)
    held_bytes = sum(record.header.num_bytes for record in found.values())
    has_room = first > 0 and held_bytes + versioned_record(*nth_put(first - 1)).header.num_bytes <= TIGHT_BYTES
    return (puts[first:stop] != there) + max(0, num_settled - stop) + has_room


def nth_put(number: int) -> tuple[str, int]:
    """Name and version of what the phase `evict` puts."""
    return f"n{number}", number


def kill(folder: Path, phase: str, key: Key, rng: random.Random) -> bool:
    """Let a process work, and kill it. Returns whether it was not done yet."""
    work, seconds = PHASES[phase]
    ready, theirs = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_quietly, args=(work, folder, key, rng, theirs))
    child.start()
    theirs.close()
    ready.recv()
    time.sleep(rng.uniform(0, seconds))
    in_time = child.is_alive()
    child.kill()
    child.join()
    return in_time


def _quietly(work: Callable[..., None], *args: object) -> None:
    quiet()
    work(*args)


def prepare(folder: Path, phase: str, key: Key, rng: random.Random) -> dict[str, int]:
    """The store that a phase begins with. Returns the versions that no kill may cost."""
    if phase not in ("repair", "migrate"):
        return {}
    with open_store(folder, AMPLE_BYTES, key) as store:
        store.put_many(versioned_record(name, rng.randrange(1000)) for name in NAMES)
        store.flush()
        if phase == "migrate":
            return versions(get_all(store, NAMES))
    damage(folder / DATABASE, rng)
    copy = folder / "copy"
    shutil.copytree(folder, copy)
    with open_store(copy, AMPLE_BYTES, key) as store:
        store.check()
        return versions(get_all(store, NAMES))


def damage(database: Path, rng: random.Random) -> None:
    """Flip bits, mostly of values: where the tree is hit, the database is given up as a whole, which proves less."""
    data = bytearray(database.read_bytes())
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(2 * PAGE, len(data))] ^= 1
    database.write_bytes(data)


def key_now(folder: Path, before: Key) -> Key:
    """The key of a store after it was changed, or was not. Raises StoreKeyError if it is neither."""
    try:
        open_store(folder, AMPLE_BYTES, before).close()
    except StoreKeyError:
        open_store(folder, AMPLE_BYTES, KEYS[0]).close()
        return KEYS[0]
    return before
