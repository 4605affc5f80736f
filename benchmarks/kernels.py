"""Speed of moving and rebuilding the KV of a chunk, relative to a copy of as many bytes.

    python -m benchmarks.kernels --json

relocate  keys are rotated from their masters: reads K, writes K
rebuild   a base and a patch of some rank are added and rotated: reads K, V and factors, writes masters, K and V

gbps       the fewest bytes that the operation has to move, with tables and factors, in 10^9 bytes per second
copy_gbps  a copy of as many bytes, read and written, on the same device in the same run
ratio      gbps over copy_gbps
ms         time of the operation; eager_ms: time of its eager twin, which is also what runs on a CPU

On CUDA the calls are queued while the device waits, so the time of the host does not count, and they go over enough
buffers to miss the cache. On a CPU, copy and operation alternate. Figures are medians.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, NamedTuple

import torch

from benchmarks.command import parser_of, show
from kamera_agent.runtime.kernels.dispatch import EAGER, Kernels, kernels_for
from kamera_agent.runtime.kernels.layers import Factors, LayerKV, tensors_of
from kamera_agent.runtime.kernels.slots import Slots

SEED = 0
FIRST_SLOT = 64
PAUSE_CYCLES = 20_000_000
CACHES, CALLS, TRIES = 3, 20, 5


class Shape(NamedTuple):
    """KV of a model: layers, and (heads, components) of keys and of values."""

    num_layers: int
    keys: tuple[int, int]
    values: tuple[int, int]


SHAPES = {
    "qwen2_5_vl_7b": Shape(28, (4, 128), (4, 128)),
    "qwen3_vl_8b": Shape(36, (8, 128), (8, 128)),
    "deepseek_v3_latent": Shape(61, (1, 64), (1, 512)),
}
TOKENS = (256, 1196, 2640)
# None stands for relocate, a number for rebuild with a patch of that rank.
RANKS = (None, 0, 16, 32, 64)


class Workload:
    """One chunk, a pool with other tokens before its slots, and as many bytes to copy."""

    def __init__(self, shape: Shape, tokens: int, rank: int | None, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator(device).manual_seed(SEED)

        def normal(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator, device=device, dtype=dtype)

        layers, heads = range(shape.num_layers), (shape.keys, shape.keys, shape.values)
        masters, keys, values = (normal(len(layers), num, FIRST_SLOT + tokens, dim) for num, dim in heads)
        slots = Slots((range(FIRST_SLOT, FIRST_SLOT + tokens),))
        angles = 100 * torch.rand(1, tokens, shape.keys[1], generator=generator, device=device)
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        moved = [cos, sin, *2 * [masters[:, :, FIRST_SLOT:]]]
        self.run: Callable[[Kernels], None]
        if rank is None:
            self.run = lambda kernels: kernels.relocate(masters, keys, slots, cos, sin, "half")
        else:
            numbers = sum(num * dim for num, dim in heads[1:])
            base = [LayerKV(*(normal(num, tokens, dim) for num, dim in heads[1:])) for _ in layers]
            factors = [Factors(normal(tokens, rank), normal(rank, numbers)) for _ in layers] if rank else None
            self.run = lambda kernels: kernels.rebuild(masters, keys, values, slots, base, factors, cos, sin, "half")
            moved += [masters[:, :, FIRST_SLOT:], *2 * [values[:, :, FIRST_SLOT:]]]
            moved += [factor for layer in factors or () for factor in tensors_of(layer)]
        self.num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in moved)
        self._source = torch.zeros(self.num_bytes // 2, dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def copy(self) -> None:
        """Copy half as many bytes, so that reads and writes add up to num_bytes."""
        self._target.copy_(self._source)


def cuda_ms(calls: Sequence[Callable[[], None]]) -> float:
    """Milliseconds of device time per call, over the calls in turn."""
    for call in calls:
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for attempt in range(TRIES):
        torch.cuda.synchronize()
        # The device waits until the host has queued all calls, or longer at the next attempt.
        torch.cuda._sleep(PAUSE_CYCLES << attempt)
        start.record()
        for number in range(CALLS):
            calls[number % len(calls)]()
        end.record()
        waited = not start.query()
        torch.cuda.synchronize()
        if waited:
            break
    return start.elapsed_time(end) / CALLS


def cpu_ms(call: Callable[[], None]) -> float:
    start = perf_counter()
    call()
    return 1e3 * (perf_counter() - start)


def measure_cuda(shape: Shape, tokens: int, rank: int | None, rounds: int) -> dict[str, float]:
    """Medians over the rounds. The copy and the kernel alternate."""
    device = torch.device("cuda")
    kernels, cache = kernels_for(device), torch.cuda.get_device_properties(device).L2_cache_size
    loads = [Workload(shape, tokens, rank, device, torch.bfloat16)]
    loads += [
        Workload(shape, tokens, rank, device, torch.bfloat16) for _ in range(CACHES * cache // loads[0].num_bytes)
    ]
    times = [
        (
            cuda_ms([load.copy for load in loads]),
            cuda_ms([lambda load=load: load.run(kernels) for load in loads]),  # type: ignore[misc]
        )
        for _ in range(rounds)
    ]
    eager_ms = statistics.median(cpu_ms(lambda: _finished(loads[0])) for _ in range(rounds))
    return _figures(loads[0].num_bytes, times, eager_ms)


def _finished(load: Workload) -> None:
    load.run(EAGER)
    torch.cuda.synchronize()


def measure_cpu(shape: Shape, tokens: int, rank: int | None, rounds: int) -> dict[str, float]:
    """Medians over the rounds, after a warm-up."""
    load = Workload(shape, tokens, rank, torch.device("cpu"), torch.float32)
    times = [(cpu_ms(load.copy), cpu_ms(lambda: load.run(EAGER))) for _ in range(rounds + 1)][1:]
    return _figures(load.num_bytes, times, statistics.median(ms for _, ms in times))


def _figures(num_bytes: int, times: Sequence[tuple[float, float]], eager_ms: float) -> dict[str, float]:
    copy_ms, ms = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "gbps": round(num_bytes / ms / 1e6, 2),
        "copy_gbps": round(num_bytes / copy_ms / 1e6, 2),
        "ratio": round(statistics.median(copy / own for copy, own in times), 3),
        "ms": round(ms, 4),
        "eager_ms": round(eager_ms, 4),
    }


Measure = Callable[[Shape, int, int | None, int], dict[str, float]]


def cells(
    measure: Measure, shapes: Mapping[str, Shape], tokens: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """Figures for each shape, number of tokens and operation. Prints them as they come."""
    for name, shape in shapes.items():
        for num_tokens in tokens:
            for rank in RANKS:
                cell = {"shape": name, "tokens": num_tokens, "operation": "relocate" if rank is None else "rebuild"}
                cell |= {} if rank is None else {"rank": rank}
                figures = measure(shape, num_tokens, rank, rounds)
                gc.collect()
                print("  ".join(map(str, (*cell.values(), *figures.items()))), flush=True)
                yield cell | figures


def ratio(measured: Sequence[Mapping[str, Any]], operation: str, rank: int | None = None) -> float:
    """The ratio of the first shape at the middle number of tokens, a screenshot of 1280x720."""
    return float(
        next(
            cell["ratio"]
            for cell in measured
            if (cell["operation"], cell.get("rank"), cell["tokens"]) == (operation, rank, TOKENS[1])
        )
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds per cell (default 7)")
    parser.add_argument("--only", choices=("cuda", "cpu"), help="measure one device; default: all that are there")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.only != "cpu" and torch.cuda.is_available():
        measured = list(cells(measure_cuda, SHAPES, TOKENS, options.rounds))
        result["cuda"] = {
            "relocate_vs_copy": ratio(measured, "relocate"),
            "rebuild_r32_vs_copy": ratio(measured, "rebuild", 32),
            "cells": measured,
        }
    if options.only != "cuda":
        measured = list(cells(measure_cpu, SHAPES, TOKENS, options.rounds))
        result["cpu"] = {
            "relocate_vs_memcpy": ratio(measured, "relocate"),
            "rebuild_r16_vs_memcpy": ratio(measured, "rebuild", 16),
            "cells": measured,
        }
    result["conditions"] = {
        "dtype": {"cuda": "bfloat16", "cpu": "float32"},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "rounds": options.rounds,
        "seed": SEED,
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    show(result, options.json)


if __name__ == "__main__":
    main()
