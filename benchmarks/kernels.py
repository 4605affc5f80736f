"""How close rebuilding a chunk comes to the speed of the memory.

    python -m benchmarks.kernels --json

relocate  keys turned from their masters: reads K, writes K
rebuild   canonical KV plus a patch of some rank, turned: reads K, V and factors, writes master, K and V

gbps counts the fewest bytes that the operation must move, tables and factors too, in 10^9 bytes a second; copy_gbps
is a copy of as many bytes, read and written, on the same device in the same run; ratio is the one over the other. ms is
the time of the operation, eager_ms that of its eager twin; on the CPU the twin is what runs.

On CUDA the calls are queued behind a pause, so that the host's time does not count, over as many buffers as it takes to
leave the cache. On the CPU copy and operation take turns; figures are medians.
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
CACHES, CALLS = 3, 20


class Shape(NamedTuple):
    """KV of a model: layers, and heads x components of keys and of values."""

    num_layers: int
    keys: tuple[int, int]
    values: tuple[int, int]


SHAPES = {
    "qwen2_5_vl_7b": Shape(28, (4, 128), (4, 128)),
    "qwen3_vl_8b": Shape(36, (8, 128), (8, 128)),
    "deepseek_v3_latent": Shape(61, (1, 64), (1, 512)),
}
TOKENS = (256, 1196, 2640)
# None is relocate, a number rebuild with a patch of that rank.
RANKS = (None, 0, 16, 32, 64)


class Workload:
    """One chunk, the pool that it goes to, behind tokens of others, and as many bytes to copy."""

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
            canonical = [LayerKV(*(normal(num, tokens, dim) for num, dim in heads[1:])) for _ in layers]
            factors = [Factors(normal(tokens, rank), normal(rank, numbers)) for _ in layers] if rank else None
            self.run = lambda kernels: kernels.rebuild(
                masters, keys, values, slots, canonical, factors, cos, sin, "half"
            )
            moved += [masters[:, :, FIRST_SLOT:], *2 * [values[:, :, FIRST_SLOT:]]]
            moved += [factor for layer in factors or () for factor in tensors_of(layer)]
        self.num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in moved)
        self._source = torch.zeros(self.num_bytes // 2, dtype=torch.uint8, device=device)
        self._target = torch.empty_like(self._source)

    def copy(self) -> None:
        """Read half of the bytes and write the other half."""
        self._target.copy_(self._source)


def cuda_ms(calls: Sequence[Callable[[], None]]) -> float:
    """Milliseconds of device time a call, the calls taking turns."""
    for call in calls:
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    # The device idles until the host is ahead of it.
    torch.cuda._sleep(PAUSE_CYCLES)
    start.record()
    for number in range(CALLS):
        calls[number % len(calls)]()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / CALLS


def cpu_ms(call: Callable[[], None]) -> float:
    start = perf_counter()
    call()
    return 1e3 * (perf_counter() - start)


def measure_cuda(shape: Shape, tokens: int, rank: int | None, rounds: int) -> dict[str, float]:
    """Medians over the rounds; the copy and the kernel take turns."""
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
    """Medians over the rounds after a warm-up."""
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
    """One for each shape, number of tokens and operation."""
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
    """Of the first shape at the middle number of tokens, which is a screenshot of 1280x720."""
    return float(
        next(
            cell["ratio"]
            for cell in measured
            if (cell["operation"], cell.get("rank"), cell["tokens"]) == (operation, rank, TOKENS[1])
        )
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of each cell (default 7)")
    options = parser.parse_args()
    result: dict[str, Any] = {"cuda": None}
    if torch.cuda.is_available():
        measured = list(cells(measure_cuda, SHAPES, TOKENS, options.rounds))
        result["cuda"] = {
            "relocate_vs_copy": ratio(measured, "relocate"),
            "rebuild_r32_vs_copy": ratio(measured, "rebuild", 32),
            "cells": measured,
        }
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
