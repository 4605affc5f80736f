"""How long single calls take on each tier of a store: the median and the slowest in a hundred, with 1 and 4 readers.

memory  records in this process
disk    records on disk, in the page cache
sealed  the same, encrypted
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from kamera_agent.chunk import Key, Record
from kamera_agent.config import MIB
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.speed import percentiles, seconds_of, store_steps

CAP_BYTES = 1024 * MIB
KEY = bytes(range(32))
NUM_RECORDS, READERS = 6, (1, 4)

TIERS: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(CAP_BYTES),
    "disk": lambda folder: LmdbStore(folder / "latency", CAP_BYTES),
    "sealed": lambda folder: LmdbStore(folder / "latency_sealed", CAP_BYTES, key=lambda: KEY),
}

Figures = dict[str, dict[str, float]]


def measure_latency(folder: Path, record: Record, num_calls: int) -> dict[str, Figures]:
    """Of each tier: milliseconds of put (and flush), and of get with so many readers at once."""
    keys = [Key.of(benchmark="latency", number=number) for number in range(NUM_RECORDS)]
    records = [Record.of(key, key.digest, "base", record.layers) for key in keys]
    figures = {}
    for name, open_tier in TIERS.items():
        with open_tier(folder) as store:
            puts = [seconds_of(store_steps(store, records[i % NUM_RECORDS])["put"]) for i in range(num_calls)]
            gets = {f"get_{count}": read(store, keys, count, num_calls) for count in READERS}
        figures[name] = {"put": percentiles(puts), **{way: percentiles(times) for way, times in gets.items()}}
    return figures


def read(store: Store, keys: Sequence[Key], num_readers: int, num_calls: int) -> list[float]:
    """Seconds of each get of one of the keys; the readers begin at once and share the calls."""
    times: list[list[float]] = [[] for _ in range(num_readers)]
    begin = threading.Barrier(num_readers)

    def work(number: int) -> None:
        rng = random.Random(number)
        begin.wait()
        for _ in range(num_calls // num_readers):
            key = rng.choice(keys)
            times[number].append(seconds_of(lambda key=key: store.get_many([key])))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seconds for each in times for seconds in each]
