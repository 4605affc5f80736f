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
from typing import Any, Self

import torch

from kamera_agent.cli.demo.meter import Meter
from kamera_agent.cli.demo.scale import Scale
from kamera_agent.pocket.weights import POCKET


@dataclass(frozen=True, slots=True)
class Part:
    """The part of one process: the measured turns [first, stop) of a scale, counted from 0."""

    scale: Scale
    process: int
    first: int
    stop: int
    store: str

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """A part from the output of asdict()."""
        return cls(**{**facts, "scale": Scale(**facts["scale"])})


def play(part: Part) -> Iterator[dict[str, Any]]:
    """Yield the conditions, then each turn when it is measured."""
    scale = part.scale
    with closing(Meter(scale, Path(part.store))) as meter:
        yield _conditions(meter.model, POCKET if scale.is_trained else "random")
        meter.warm_up()
        if part.first == 0:
            meter.enter(scale.before)
        for index in range(part.first, part.stop):
            full = scale.is_trained or index + 1 == part.stop
            yield asdict(meter.measure(scale.measured[index], index + 1, part.process, full=full))


def _conditions(model: Any, weights: str) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": weights,
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
    for facts in play(Part.from_json(json.loads(sys.argv[1]))):
        print(json.dumps(facts), flush=True)
