"""Measures all cells of one model."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.command import versions
from benchmarks.fidelity.cores import on_all_cores
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.run import Result
from benchmarks.fidelity.score import by_layer, make_cells, ranks, summarise
from benchmarks.fidelity.shards import run_shard, subject_for

SHARD = 12


def measure(model: str, num_cases: int, events: Sequence[str] = tuple(EVENTS)) -> dict[str, Any]:
    """Conditions, summary, ranks, norms and cells of the model in a folder under some events. Uses all cores."""
    results = list(_run_all(model, num_cases, events))
    cells = make_cells(results)
    energies = by_layer(results, "energy_ranks")
    return {
        "conditions": _conditions(model, num_cases),
        **summarise(cells),
        "ranks": {event: ranks(cells[event], held) for event, held in energies.items()},
        "norms": by_layer(results, "norms"),
        "cells": cells,
    }


def _run_all(model: str, num_cases: int, events: Sequence[str]) -> Iterator[Result]:
    ground = subject_for(model).bench.ground
    jobs = [
        (model, scene, event, first, min(first + SHARD, num_cases))
        for event in events
        for scene in ground.scenes
        if EVENTS[event].leaves(ground, scene)
        for first in range(0, num_cases, SHARD)
    ]
    for shard in on_all_cores(run_shard, jobs, "cases"):
        yield from shard


def _conditions(model: str, num_cases: int) -> dict[str, Any]:
    family = subject_for(model).bench.engine.family
    kv = family.decoder.kv_shape
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(family.model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in family.model.parameters()),
        "attention": family.decoder.attention,
        "kv": {"num_layers": kv.num_layers, "keys": kv.keys._asdict(), "values": kv.values._asdict()},
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "device": "cpu",
        "machine": platform.machine(),
        "cases": num_cases,
        "seeds": [0, num_cases],
        "versions": versions(),
    }
