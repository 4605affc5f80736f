"""A child process of the demo: plays some turns over a store's folder and prints one JSON line for each.

Run as `python -m kamera_agent.cli.demo.worker PART`, PART being JSON. The first line tells the conditions.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kamera_agent.cli.demo.meter import Meter
from kamera_agent.cli.demo.trace import TRACE
from kamera_agent.config import DEFAULT_RANK
from kamera_agent.pocket.weights import POCKET


@dataclass(frozen=True, slots=True)
class Part:
    """What one process does: the turns [first, stop) of the trace, counted from 0."""

    process: int
    first: int
    stop: int
    store: str


def play(part: Part) -> Iterator[dict[str, Any]]:
    """The conditions, then the turns as they are measured."""
    with closing(Meter(Path(part.store))) as meter:
        yield _conditions(meter.model)
        meter.warm_up()
        for index in range(part.first, part.stop):
            yield asdict(meter.measure(TRACE[index], number=index + 1, process=part.process))


def _conditions(model: Any) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": POCKET,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "num_threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "rank": DEFAULT_RANK,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers")},
        },
    }


if __name__ == "__main__":
    for facts in play(Part(**json.loads(sys.argv[1]))):
        print(json.dumps(facts), flush=True)
