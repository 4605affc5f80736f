"""After a process is killed while it writes, every record is whole or absent."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from lmdb.verify import verify
from store_records import genuine, make_key, versioned_record

from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

NUM_KILLS = 50
CAP_BYTES = 400_000
NAMES = [f"r{i}{patch}" for i in range(20) for patch in ("", "/p", "/q")]


def write_for_ever(folder: Path, seed: int, ready: Connection) -> None:
    """Put, replace, delete and evict until the process is killed."""
    rng, store = random.Random(seed), LmdbStore(folder, CAP_BYTES, queue_bytes=200_000)
    ready.send(None)
    while True:
        store.put_many(versioned_record(rng.choice(NAMES), rng.randrange(1000)) for _ in range(5))
        store.delete([make_key(rng.choice(NAMES))])


def test_kill_during_writes_50_times(tmp_path: Path, forkserver: ForkServerContext) -> None:
    """1. A child writes. 2. It is killed after a random time. 3. Every record left is one that was put."""
    rng, num_seen = random.Random(0), 0
    for seed in range(NUM_KILLS):
        ready, child_end = forkserver.Pipe(duplex=False)
        child = forkserver.Process(target=write_for_ever, args=(tmp_path, seed, child_end))
        child.start()
        ready.recv()
        time.sleep(rng.uniform(0.0, 0.12))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert verify(str(tmp_path / DATABASE)) == []
        store = LmdbStore(tmp_path, CAP_BYTES)
        found = store.get_many([make_key(name) for name in NAMES])
        report, stats = store.check(), store.stats()
        store.close()
        assert all(genuine(name, found[d]) for name in NAMES if (d := make_key(name).digest) in found)
        assert (report.problems, stats.quarantined) == ((), 0)
        assert (report.num_records, report.num_bytes) == (len(found), stats.num_bytes)
        assert stats.num_bytes <= CAP_BYTES
        num_seen += len(found)
    assert num_seen > NUM_KILLS, "the children were killed before they wrote anything"
