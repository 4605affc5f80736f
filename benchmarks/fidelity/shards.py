"""The work of a worker process, in a module that it can import."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from benchmarks.fidelity.backbones.ground import GROUND, StemBench
from benchmarks.fidelity.backbones.training import is_backbone, load_backbone
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.methods import METHODS, PLAIN_METHODS
from benchmarks.fidelity.metric import column_weights
from benchmarks.fidelity.run import Result, Subject, run_case
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for, load

ENCODER_BYTES = 1 << 26

Job = tuple[str, str, str, int, int]


@cache
def subject_for(model: str) -> Subject:
    """The model in a folder: a checkpoint, or a trained backbone."""
    if is_backbone(Path(model)):
        return Subject(StemBench(Engine(load_backbone(Path(model)), ENCODER_BYTES), GROUND), PLAIN_METHODS, None)
    bench = Bench(Engine(family_for(*load(model, device="cpu")), ENCODER_BYTES))
    return Subject(bench, METHODS, column_weights(bench))


def run_shard(job: Job) -> list[Result]:
    """The cases [first, stop) of a scene under an event; a job is (model, scene, event, first, stop)."""
    model, scene, event, first, stop = job
    return [result for seed in range(first, stop) for result in run_case(subject_for(model), scene, event, seed)]
