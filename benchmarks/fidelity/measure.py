"""Measures all cells of one model."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.command import versions
from benchmarks.fidelity.cores import on_all_cores
from benchmarks.fidelity.events import EVENTS
from benchmarks.fidelity.run import Result
from benchmarks.fidelity.score import by_layer, make_cells, ranks, summarise
from benchmarks.fidelity.shards import Job, kept_shard, subject_for
from benchmarks.fidelity.split import SPLIT_METHODS
from kamera_agent.runtime.families.decoder import FULL

SHARD = 5


class Extent(NamedTuple):
    """num_cases: cases per cell. num_studied: those of them, from the first on, that every method answers.

    parts: folder that keeps the results of finished shards, where a later run finds them; None keeps nothing.
    """

    num_cases: int
    num_studied: int
    parts: Path | None = None


def measure(model: str, extent: Extent, events: Sequence[str] = tuple(EVENTS)) -> dict[str, Any]:
    """Conditions, summary, ranks, norms and cells of the model in a folder under some events. Uses all cores.

    split: the cells of those cases that the methods of split.py answer, which compare with them.
    """
    results = list(_run_all(model, extent, events))
    cells = make_cells(results)
    energies = by_layer(results, "energy_ranks")
    return {
        "conditions": _conditions(model, extent),
        **summarise(cells),
        "ranks": {event: ranks(cells[event], held) for event, held in energies.items()},
        "norms": by_layer(results, "norms"),
        "cells": cells,
        "split": make_cells(result for result in results if SPLIT_METHODS.keys() & result.answers.keys()),
    }


def _run_all(model: str, extent: Extent, events: Sequence[str]) -> Iterator[Result]:
    ground = subject_for(model).bench.ground
    if extent.parts:
        extent.parts.mkdir(parents=True, exist_ok=True)
    jobs = [
        (extent.parts, Job(model, scene, left, first, min(first + SHARD, extent.num_cases), extent.num_studied))
        for first in range(0, extent.num_cases, SHARD)
        for scene in ground.scenes
        for left in [tuple(event for event in events if EVENTS[event].leaves(ground, scene))]
    ]
    for shard in on_all_cores(kept_shard, jobs, "cases"):
        yield from shard


def _conditions(model: str, extent: Extent) -> dict[str, Any]:
    family = subject_for(model).bench.engine.family
    recurrence = family.decoder.recurrence
    others = sorted(kind.replace("_", " ") for kind in {*family.decoder.kinds} - {FULL})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": type(family.model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in family.model.parameters()),
        "attention": ", ".join([family.decoder.attention, *others]),
        "kv": [
            {
                "kind": bank.kind,
                "num_layers": len(bank.layers),
                "keys": bank.keys._asdict(),
                "values": bank.values._asdict(),
            }
            for bank in family.decoder.shapes
        ],
        "num_recurrent_layers": len(recurrence.mixers) if recurrence else 0,
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "device": "cpu",
        "machine": platform.machine(),
        "cases": extent.num_cases,
        "studied": min(extent.num_studied, extent.num_cases),
        "seeds": [0, extent.num_cases],
        "versions": versions(),
    }
