"""Writing and reading one chunk on the disk tier, compared with plain files and memory copies; and what contexts take.

    python -m benchmarks.store --json

Each round takes every measurement once, so a busy machine slows all of them alike. The figures are medians over the
rounds. The file of the store and the plain file are on the same disk, in the page cache.

put         put_many() and flush(): encode, checksum, copy into the database, commit, sync
get         get_many(): copy from the page cache into fresh tensors, verify every checksum
put_sealed  as put, into an encrypted store
get_sealed  as get, from an encrypted store: decrypt into fresh tensors, verify every tag
file_write  the same bytes to a new plain file, and fsync
file_read   the plain file from the page cache into fresh memory (readinto), without a checksum
memcpy      resident memory into fresh memory, numpy.copyto on one thread, tensor by tensor
memcpy_sum  the same, with the xxh3-128 of each copy

get, file_read, memcpy and memcpy_sum fill the same kind of memory: one uninitialised block from torch.empty, which is
allocated within the measured time and freed after it.

latency   milliseconds of single calls on each tier, median and 99th percentile (benchmarks/latency.py)
codecs    bytes of the base of that screenshot in the dtypes of models, and with base_dtype="int8"
contexts  bytes of a chunk that was seen in 1, 2, 3 and 8 contexts, over as many full copies (benchmarks/contexts.py)
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from xxhash import xxh3_128_digest

from benchmarks.command import parser_of
from benchmarks.contexts import measure_contexts
from benchmarks.latency import measure_latency
from kamera_agent.chunk import Key, Record
from kamera_agent.config import MIB
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.lmdb_store import LmdbStore

NUM_LAYERS, NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM = 12, 2, 1196, 64
SEED = 0
KEY = bytes(range(32))
STEPS = ("put", "get", "put_sealed", "get_sealed", "file_write", "file_read", "memcpy", "memcpy_sum")


def make_record(seed: int) -> Record:
    """The base of one 1280x720 screenshot: per layer K and V [H, T, D]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM)
    layers = [[torch.randn(shape, generator=generator) for _ in range(2)] for _ in range(NUM_LAYERS)]
    key = Key.of(benchmark="store")
    return Record.of(key, key.digest, "base", layers)


class Workload:
    """The steps of a round. All of them move the bytes of one record."""

    def __init__(self, folder: Path) -> None:
        self.record = make_record(SEED)
        self.tensors = [tensor for tensors in self.record.layers for tensor in tensors]
        self.file = folder / "plain"
        self.store = LmdbStore(folder / "store", cap_bytes=1024 * MIB)
        self.sealed = LmdbStore(folder / "sealed", cap_bytes=1024 * MIB, key=lambda: KEY)

    def put(self) -> None:
        self._put(self.store)

    def get(self) -> list[torch.Tensor]:
        return self._get(self.store)

    def put_sealed(self) -> None:
        self._put(self.sealed)

    def get_sealed(self) -> list[torch.Tensor]:
        return self._get(self.sealed)

    def file_write(self) -> None:
        with self.file.open("wb", buffering=0) as file:
            for tensor in self.tensors:
                file.write(tensor.numpy().data)
            os.fsync(file.fileno())

    def file_read(self) -> list[torch.Tensor]:
        fresh = self.fresh()
        with self.file.open("rb", buffering=0) as file:
            for tensor in fresh:
                file.readinto(tensor.numpy().data)
        return fresh

    def memcpy(self) -> list[torch.Tensor]:
        fresh = self.fresh()
        for target, tensor in zip(fresh, self.tensors, strict=True):
            np.copyto(target.numpy(), tensor.reshape(-1).numpy())
        return fresh

    def memcpy_sum(self) -> list[torch.Tensor]:
        fresh = self.memcpy()
        for target in fresh:
            xxh3_128_digest(target.numpy().data)
        return fresh

    def close(self) -> None:
        self.store.close()
        self.sealed.close()

    def _put(self, store: LmdbStore) -> None:
        store.put_many([self.record])
        store.flush()

    def _get(self, store: LmdbStore) -> list[torch.Tensor]:
        record = store.get_many([self.record.header.key])[self.record.header.key.digest]
        return [tensor for tensors in record.layers for tensor in tensors]

    def fresh(self) -> list[torch.Tensor]:
        """Uninitialised memory for every tensor, flat, in one block."""
        sizes = [tensor.numel() for tensor in self.tensors]
        return list(torch.empty(sum(sizes)).split(sizes))


def seconds_of(step: Callable[[], object]) -> float:
    """Time of one call. Its result is freed afterwards."""
    start = time.perf_counter()
    result = step()
    seconds = time.perf_counter() - start
    del result
    return seconds


def measure(workload: Workload, num_rounds: int) -> dict[str, float]:
    """Median seconds of every step, after two rounds of warm-up."""
    steps = [getattr(workload, name) for name in STEPS]
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for number in range(num_rounds + 2):
        # In rotating order; both puts come before their gets in the first round.
        for step in steps[number % len(steps) :] + steps[: number % len(steps)]:
            times[step.__name__].append(seconds_of(step))
    return {name: statistics.median(seconds[2:]) for name, seconds in times.items()}


def report(medians: dict[str, float], record: Record, num_rounds: int) -> dict[str, object]:
    """Rates in GB/s (10^9 bytes per second), their ratios, and the conditions."""
    num_bytes = record.header.num_bytes
    rates = {f"{name}_gbps": round(num_bytes / seconds / 1e9, 3) for name, seconds in medians.items()}
    return {
        **rates,
        "get_vs_memcpy": round(medians["memcpy"] / medians["get"], 3),
        "get_vs_memcpy_sum": round(medians["memcpy_sum"] / medians["get"], 3),
        "put_vs_file": round(medians["file_write"] / medians["put"], 3),
        "crypto_overhead": round(medians["get_sealed"] / medians["get"], 3),
        "crypto_overhead_put": round(medians["put_sealed"] / medians["put"], 3),
        "conditions": {
            "shape": [NUM_LAYERS, 2, NUM_KV_HEADS, NUM_TOKENS, HEAD_DIM],
            "tokens": NUM_TOKENS,
            "bytes": num_bytes,
            "dtype": "float32",
            "device": "cpu",
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
            "rounds": num_rounds,
            "seed": SEED,
            "torch": torch.__version__,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        },
    }


def codec_bytes(record: Record) -> dict[str, int]:
    """Bytes of the base by codec: the dtypes of models, and int8 with its steps."""
    layers = [LayerKV(keys, values) for keys, values in record.layers]
    num_values = sum(layer.keys.numel() + layer.values.numel() for layer in layers)
    rounded = [tensor for layer in map(compressed, layers) for tensor in layer if tensor is not None]
    return {"float32": 4 * num_values, "bfloat16": 2 * num_values, "int8": sum(tensor.nbytes for tensor in rounded)}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds, at least 7 (default 15)")
    parser.add_argument("--calls", type=int, default=200, help="calls of each kind for the latency (default 200)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(Path(folder))
        result = report(measure(workload, max(7, args.rounds)), workload.record, max(7, args.rounds))
        workload.close()
        result["latency"] = latency = measure_latency(Path(folder), workload.record, max(8, args.calls))
    result["codecs"] = codec_bytes(workload.record)
    result["contexts"] = contexts = measure_contexts()
    print(f"one chunk of {NUM_TOKENS} tokens, {workload.record.header.num_bytes / 1e6:.1f} MB, float32")
    for name in STEPS:
        print(f"{name:>10}  {result[f'{name}_gbps']:7.3f} GB/s")
    print(
        f"get: {result['get_vs_memcpy']} of the rate of memcpy, {result['get_vs_memcpy_sum']} of memcpy with a checksum"
    )
    print(f"put: {result['put_vs_file']} of the rate of a plain file")
    for tier, ways in latency.items():
        times = ", ".join(f"{way} {each['p50_ms']} and {each['p99_ms']}" for way, each in ways.items())
        print(f"{tier:>10}  p50 and p99 in ms: {times}")
    print("bytes by codec: " + ", ".join(f"{name} {num_bytes:,}" for name, num_bytes in result["codecs"].items()))
    print(f"encrypted: get takes {result['crypto_overhead']} times as long, put {result['crypto_overhead_put']} times")
    for dtype in ("full", "int8"):
        shares = ", ".join(f"{share:.2f} for {count}" for count, share in contexts[dtype].items())
        print(f"bytes over full copies by contexts, base in {dtype}: {shares}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
