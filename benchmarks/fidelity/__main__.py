"""Accuracy and divergence of every way of reuse, on the trained model.

    python -m benchmarks.fidelity --json [--cases 500] [--markdown FILE] [--plot FILE]

Every cell is a task under an event (benchmarks/fidelity/events.py) with a method (benchmarks/fidelity/methods.py):
the same seeded cases for all methods. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import track

from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.report import as_markdown, draw
from benchmarks.fidelity.run import Result
from benchmarks.fidelity.score import make_cells, mean_norms, summarise
from benchmarks.fidelity.shards import bench_for, one_thread, run_shard
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.weights import WEIGHTS

SHARD = 12


def main() -> None:
    """Run all cells and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--cases", type=int, default=500, help="cases a cell")
    parser.add_argument("--model", default=str(WEIGHTS), help="folder of a checkpoint that knows the pocket's tasks")
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    parser.add_argument("--plot", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    results = list(_run_all(arguments.model, arguments.cases))
    cells = make_cells(results)
    report: dict[str, Any] = {
        "conditions": _conditions(arguments.model, arguments.cases),
        **summarise(cells),
        "norms": mean_norms(results),
        "cells": cells,
    }
    tables = as_markdown(cells)
    if arguments.markdown:
        arguments.markdown.write_text(tables + "\n")
    if arguments.plot:
        draw(report, arguments.plot)
    print(json.dumps(report) if arguments.json else tables)


def _run_all(model: str, num_cases: int) -> Iterator[Result]:
    jobs = [
        (model, task, event, first, min(first + SHARD, num_cases))
        for event in EVENTS
        for task in TASKS
        if EVENTS[event].leaves(task)
        for first in range(0, num_cases, SHARD)
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=one_thread) as workers:
        for shard in track(workers.map(run_shard, jobs), "cases", len(jobs), console=Console(stderr=True)):
            yield from shard


def _conditions(model: str, num_cases: int) -> dict[str, Any]:
    family = bench_for(model)[0].engine.family
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(family.model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in family.model.parameters()),
        "kv": family.kv_shape._asdict() | {"dtype": str(family.kv_shape.dtype), "device": str(family.kv_shape.device)},
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "device": "cpu",
        "machine": platform.machine(),
        "cases": num_cases,
        "seeds": [0, num_cases],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


if __name__ == "__main__":
    main()
