"""Two places for the values of records: in the map of LMDB, where the store has them, and in a file read by pread.

    python -m benchmarks.layouts --json [--rounds 15] [--chunks 75]

A chunk of 14.7 MB in 24 values is written and read, in rotating order; GB/s at the median of the rounds:

map      written in one transaction of LMDB, which syncs it; copied from the map, each copy summed (xxh3-128)
segment  written to the end of a file and synced, then its place in one transaction of LMDB; read by preadv into the
         tensors, each summed
cold     the same reads after the kernel was told to drop the files from memory

Then a store of so many chunks (75 are more than 1 GiB) is looked at before it is opened. Seconds, each the least of
three:

inspect  the structure of the database, by lmdb.verify; index_inspect: the same of an LMDB that has the places alone
sum      the sum of the pages that LMDB trusts, which is in the seal of a store that was closed in good order
open     LmdbStore() of the store with a seal, above the size from which it is used; unsealed: without one
"""

from __future__ import annotations

import os
import statistics
import struct
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lmdb
import numpy as np
import torch
from xxhash import xxh3_128_digest

from benchmarks.command import parser_of, show, versions
from kamera_agent.config import MIB
from kamera_agent.store import environment
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.inspection import find_faults
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.speed import make_base, make_layers, measure, seconds_of
from kamera_agent.store.tree import sum_of_tree

MAP_BYTES = 4096 * MIB
NAME = b"chunk"

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Map:
    """Values in LMDB."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "map"]
        self._env = lmdb.open(str(self.files[0]), subdir=False, map_size=MAP_BYTES)

    def write(self, values: Sequence[Bytes]) -> None:
        with self._env.begin(write=True) as txn:
            for number, value in enumerate(values):
                txn.put(NAME + bytes([number]), value.data)

    def read(self, targets: Sequence[Bytes]) -> None:
        with self._env.begin(buffers=True) as txn:
            for number, target in enumerate(targets):
                np.copyto(target, np.frombuffer(txn.get(NAME + bytes([number])), np.uint8))
                xxh3_128_digest(target.data)

    def close(self) -> None:
        self._env.close()


class Segment:
    """Values in a plain file, and their places in LMDB."""

    def __init__(self, folder: Path) -> None:
        self.files = [folder / "index", folder / "segment"]
        self._env = lmdb.open(str(self.files[0]), subdir=False, map_size=MAP_BYTES)
        self._file = os.open(self.files[1], os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, values: Sequence[Bytes], name: bytes = NAME) -> None:
        place = os.lseek(self._file, 0, os.SEEK_END)
        os.writev(self._file, [value.data for value in values])
        os.fdatasync(self._file)
        with self._env.begin(write=True) as txn:
            txn.put(name, struct.pack(">Q", place))

    def read(self, targets: Sequence[Bytes]) -> None:
        with self._env.begin() as txn:
            (place,) = struct.unpack(">Q", txn.get(NAME))
        os.preadv(self._file, [target.data for target in targets], place)
        for target in targets:
            xxh3_128_digest(target.data)

    def close(self) -> None:
        self._env.close()
        os.close(self._file)


def rates(folder: Path, num_rounds: int) -> dict[str, float]:
    """GB/s of writing and reading, from the page cache and cold."""
    tensors = [tensor for layer in make_layers(0, torch.float32) for tensor in layer]
    values = [tensor.view(torch.uint8).reshape(-1).numpy() for tensor in tensors]
    num_bytes = sum(value.size for value in values)
    kinds: dict[str, Callable[[Path], Map | Segment]] = {"map": Map, "segment": Segment}
    opened = {name: kind(folder) for name, kind in kinds.items()}

    def reading(name: str) -> Callable[[], object]:
        def read() -> object:
            sizes = [value.size for value in values]
            targets = [part.numpy() for part in torch.empty(num_bytes, dtype=torch.uint8).split(sizes)]
            opened[name].read(targets)
            return targets

        return read

    steps: dict[str, Callable[[], object]] = {}
    for name, layout in opened.items():
        steps |= {f"{name}_write": lambda layout=layout: layout.write(values), f"{name}_read": reading(name)}
    times = measure(steps, num_rounds)
    for number in range(num_rounds):
        for name in [*kinds] if number % 2 else [*kinds][::-1]:
            opened[name].close()
            for file in opened[name].files:
                forget(file)
            opened[name] = kinds[name](folder)
            times.setdefault(f"{name}_cold", []).append(seconds_of(reading(name)))
    for layout in opened.values():
        layout.close()
    return {f"{name}_gbps": round(num_bytes / statistics.median(some) / 1e9, 3) for name, some in times.items()}


def forget(file: Path) -> None:
    """Tell the kernel that a file is not needed in memory."""
    opened = os.open(file, os.O_RDONLY)
    os.fsync(opened)
    os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(opened)


def openings(folder: Path, num_chunks: int) -> dict[str, float]:
    """Seconds of what comes before LMDB opens a store, and the bytes of the store."""
    layers = make_layers(0, torch.float32)
    index = Segment(folder)
    with LmdbStore(folder, cap_bytes=MAP_BYTES) as store:
        for number in range(num_chunks):
            store.put_many([make_base(str(number), layers)])
            index.write([], b"%d" % number)
    index.close()
    database = folder / DATABASE
    with patch.object(environment, "INSPECTED_BYTES", 0):
        looked = {"open": _least(lambda: LmdbStore(folder).close())}
    looked["unsealed"] = _least(lambda: LmdbStore(folder).close(), lambda: database.with_suffix(".seal").unlink())
    looked["inspect"] = _least(lambda: find_faults(database))
    looked["sum"] = _least(lambda: sum_of_tree(database))
    looked["index_inspect"] = _least(lambda: find_faults(index.files[0]))
    return {**{f"{name}_s": seconds for name, seconds in looked.items()}, "bytes": database.stat().st_size}


def _least(action: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    times = []
    for _ in range(3):
        before()
        times.append(seconds_of(action))
    return round(min(times), 6)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of writing and reading (default 15)")
    parser.add_argument("--chunks", type=int, default=75, help="chunks of the store (default 75)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"rates": rates(Path(folder), options.rounds)}
        result["openings"] = openings(Path(folder), options.chunks)
    conditions = {"rounds": options.rounds, "chunks": options.chunks, "cpus": os.cpu_count(), **versions()}
    show({**result, "conditions": {**conditions, "date": datetime.now(UTC).date().isoformat()}}, options.json)


if __name__ == "__main__":
    main()
