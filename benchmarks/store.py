"""Writing and reading one chunk on the disk tier, compared with plain files and memory copies; and what contexts take.

    python -m benchmarks.store --json

Each round takes every measurement once, so a busy machine slows all of them alike. The figures are medians over the
rounds. The file of the store and the plain file are on the same disk, in the page cache.

put, get, file_write, file_read, memcpy, memcpy_sum: kamera_agent/store/speed.py, which `kamera bench` has, too
put_sealed  as put, into an encrypted store
get_sealed  as get, from an encrypted store: decrypt into fresh tensors, verify every tag

latency   milliseconds of single calls on each tier, median and 99th percentile (benchmarks/latency.py)
codecs    bytes of the base of that screenshot in the dtypes of models, and with base_dtype="int8"
contexts  bytes of a chunk that was seen in 1, 2, 3 and 8 contexts, over as many full copies (benchmarks/contexts.py)
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.command import parser_of
from benchmarks.contexts import measure_contexts
from benchmarks.latency import measure_latency
from kamera_agent.chunk import Record
from kamera_agent.config import MIB
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.speed import (
    HEAD_DIM,
    NUM_KV_HEADS,
    NUM_LAYERS,
    NUM_TOKENS,
    make_base,
    make_layers,
    measure,
    plain_steps,
    store_steps,
)

SEED = 0
KEY = bytes(range(32))
CAP_BYTES = 1024 * MIB


def medians(folder: Path, record: Record, num_rounds: int) -> dict[str, float]:
    """Median seconds of every step."""
    with ExitStack() as stack:
        store = stack.enter_context(LmdbStore(folder / "store", CAP_BYTES))
        sealed = stack.enter_context(LmdbStore(folder / "sealed", CAP_BYTES, key=lambda: KEY))
        under_key = {f"{name}_sealed": step for name, step in store_steps(sealed, record).items()}
        steps = {**store_steps(store, record), **under_key, **plain_steps(folder / "plain", record)}
        return {name: statistics.median(seconds) for name, seconds in measure(steps, num_rounds).items()}


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
    num_rounds = max(7, args.rounds)
    record = make_base("store", make_layers(SEED, torch.float32))
    with tempfile.TemporaryDirectory() as folder:
        times = medians(Path(folder), record, num_rounds)
        result = report(times, record, num_rounds)
        result["latency"] = latency = measure_latency(Path(folder), record, max(8, args.calls))
    result["codecs"] = codec_bytes(record)
    result["contexts"] = contexts = measure_contexts()
    print(f"one chunk of {NUM_TOKENS} tokens, {record.header.num_bytes / 1e6:.1f} MB, float32")
    for name in times:
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
