"""Cases in processes of their own: what a worker runs, in a module that it can import."""

from __future__ import annotations

from functools import cache

import torch

from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.metric import column_weights
from benchmarks.fidelity.run import Result, run_case
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import load

ENCODER_BYTES = 1 << 26

Job = tuple[str, str, str, int, int]


def one_thread() -> None:
    """Called once in a worker: the workers share the cores."""
    torch.set_num_threads(1)


@cache
def bench_for(model: str) -> tuple[Bench, torch.Tensor]:
    """The bench of this process, and the weights of its columns."""
    bench = Bench(Engine(load(model, device="cpu", dtype="auto", revision=None), ENCODER_BYTES))
    return bench, column_weights(bench)


def run_shard(job: Job) -> list[Result]:
    """The cases [first, stop) of a scene under an event; a job is (model, scene, event, first, stop)."""
    model, scene, event, first, stop = job
    bench, weights = bench_for(model)
    return [result for seed in range(first, stop) for result in run_case(bench, scene, event, seed, weights)]
