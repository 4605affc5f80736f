"""How long a store takes to write and to read one chunk, beside plain files and copies of memory.

put         put_many() and flush(): encode, checksum, copy into the database, commit, sync
get         get_many(): copy from the page cache into fresh tensors, verify every checksum
file_write  the same bytes to a new plain file, and fsync
file_read   the plain file from the page cache into fresh memory (readinto), without a checksum
memcpy      resident memory into fresh memory, numpy.copyto on one thread, tensor by tensor
memcpy_sum  the same, with the xxh3-128 of each copy

get, file_read, memcpy and memcpy_sum fill the same kind of memory: one uninitialised block from torch.empty, which is
allocated within the measured time and freed after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from xxhash import xxh3_128_digest

from kamera_agent.chunk import Key, Record
from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.base import Store

# The base of a screenshot of 1280x720: per layer K and V [H, T, D].
NUM_LAYERS, NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM = 12, 2, 1196, 64
WARM_UPS = 2

Steps = Mapping[str, Callable[[], object]]


def make_layers(seed: int, dtype: torch.dtype) -> list[list[torch.Tensor]]:
    """K and V of every layer of a screenshot, of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM)
    return [[torch.randn(shape, generator=generator).to(dtype) for _ in range(2)] for _ in range(NUM_LAYERS)]


def make_base(name: str, layers: Sequence[Sequence[torch.Tensor]]) -> Record:
    """A base of these layers, under a key of its own."""
    key = Key.of(speed=name)
    return Record.of(key, key.digest, "base", layers)


def store_steps(store: Store, record: Record) -> Steps:
    """`put` and `get` of a record. Raise StoreUnavailableError where the medium fails."""
    key = record.header.key

    def put() -> None:
        store.put_many([record])
        store.flush()

    def get() -> object:
        found = store.get_many([key])
        if not found:
            raise StoreUnavailableError("the store does not hold what was written to it; see the log.")
        return found

    return {"put": put, "get": get}


def plain_steps(file: Path, record: Record) -> Steps:
    """`file_write`, `file_read`, `memcpy` and `memcpy_sum` of the bytes of a record."""
    sources = [tensor.reshape(-1).view(torch.uint8).numpy() for tensors in record.layers for tensor in tensors]

    def fresh() -> list[np.ndarray]:
        sizes = [source.size for source in sources]
        return [part.numpy() for part in torch.empty(sum(sizes), dtype=torch.uint8).split(sizes)]

    def file_write() -> None:
        with file.open("wb", buffering=0) as opened:
            for source in sources:
                opened.write(source.data)
            os.fsync(opened.fileno())

    def file_read() -> object:
        targets = fresh()
        with file.open("rb", buffering=0) as opened:
            for target in targets:
                opened.readinto(target.data)
        return targets

    def memcpy() -> list[np.ndarray]:
        targets = fresh()
        for target, source in zip(targets, sources, strict=True):
            np.copyto(target, source)
        return targets

    def memcpy_sum() -> object:
        targets = memcpy()
        for target in targets:
            xxh3_128_digest(target.data)
        return targets

    return {"file_write": file_write, "file_read": file_read, "memcpy": memcpy, "memcpy_sum": memcpy_sum}


def measure(steps: Steps, num_rounds: int) -> dict[str, list[float]]:
    """Seconds of every step in each round, after WARM_UPS rounds.

    A round takes every step once, in rotating order, so a busy machine slows all of them alike. In the first round, a
    step comes after those before it.
    """
    names, times = list(steps), {name: list[float]() for name in steps}
    for number in range(num_rounds + WARM_UPS):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(seconds_of(steps[name]))
    return {name: seconds[WARM_UPS:] for name, seconds in times.items()}


def seconds_of(step: Callable[[], object]) -> float:
    """Time of one call. Its result is freed afterwards."""
    start = time.perf_counter()
    result = step()
    seconds = time.perf_counter() - start
    del result
    return seconds


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    median, slow = np.percentile(seconds, [50, 99]) * 1e3
    return {"p50_ms": round(float(median), 3), "p99_ms": round(float(slow), 3)}
