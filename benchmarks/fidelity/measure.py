"""All cells of one model."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import track

from benchmarks.fidelity.cases import SCENES
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.run import Result
from benchmarks.fidelity.score import by_layer, make_cells, ranks, summarise
from benchmarks.fidelity.shards import bench_for, one_thread, run_shard

SHARD = 12


def measure(model: str, num_cases: int) -> dict[str, Any]:
    """Conditions, summary, ranks, norms and cells of a checkpoint's folder, on all cores."""
    results = list(_run_all(model, num_cases))
    cells = make_cells(results)
    energies = by_layer(results, "energy_ranks")
    return {
        "conditions": _conditions(model, num_cases),
        **summarise(cells),
        "ranks": {event: ranks(cells[event], held) for event, held in energies.items()},
        "norms": by_layer(results, "norms"),
        "cells": cells,
    }


def _run_all(model: str, num_cases: int) -> Iterator[Result]:
    jobs = [
        (model, scene, event, first, min(first + SHARD, num_cases))
        for event in EVENTS
        for scene in SCENES
        if EVENTS[event].leaves(scene)
        for first in range(0, num_cases, SHARD)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=one_thread) as workers:
        for shard in track(workers.map(run_shard, jobs), "cases", len(jobs), console=Console(stderr=True)):
            yield from shard


def _conditions(model: str, num_cases: int) -> dict[str, Any]:
    family = bench_for(model)[0].engine.family
    kv = family.decoder.kv_shape
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(family.model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in family.model.parameters()),
        "kv": {"num_layers": kv.num_layers, "num_heads": kv.keys.num, "head_dim": kv.keys.dim},
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "device": "cpu",
        "machine": platform.machine(),
        "cases": num_cases,
        "seeds": [0, num_cases],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
