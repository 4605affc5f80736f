"""A child process of the demo: plays some turns over the folder of a store and prints one JSON line per turn.

Run as `python -m kamera_agent.cli.demo.worker PART`, where PART is JSON. The first line holds the conditions.
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
from kamera_agent.pocket.weights import POCKET


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one process: the turns [first, stop) of the trace, counted from 0."""

    process: int
    first: int
    stop: int
    store: str


def play(part: Part) -> Iterator[dict[str, Any]]:
    """Yield the conditions, then each turn when it is measured."""
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
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers")},
        },
    }


if __name__ == "__main__":
    for facts in play(Part(**json.loads(sys.argv[1]))):
        print(json.dumps(facts), flush=True)
