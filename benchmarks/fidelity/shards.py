"""The work of a worker process, in a module that it can import."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.fidelity.backbones.ground import GROUND, StemBench
from benchmarks.fidelity.backbones.training import is_backbone, load_backbone
from benchmarks.fidelity.bench import Bench
from benchmarks.fidelity.live import Live
from benchmarks.fidelity.methods import HYBRID_METHODS, METHODS, PLAIN_METHODS
from benchmarks.fidelity.metric import column_weights
from benchmarks.fidelity.run import Result, Subject, read_result, run_case
from kamera_agent.runtime.engine import Engine
from kamera_agent.runtime.families import family_for, load

ENCODER_BYTES = 1 << 29


class Job(NamedTuple):
    """The cases [first, stop) of a scene under some events.

    model: its folder. num_studied: cases, from 0 on, that are answered with every method.
    """

    model: str
    scene: str
    events: tuple[str, ...]
    first: int
    stop: int
    num_studied: int


@cache
def subject_for(model: str) -> Subject:
    """The model in a folder: a checkpoint, or a trained backbone."""
    if is_backbone(Path(model)):
        bench = StemBench(Engine(load_backbone(Path(model)), ENCODER_BYTES), GROUND)
        methods = HYBRID_METHODS if bench.engine.family.decoder.recurrence else PLAIN_METHODS
        return Subject(bench, methods, None, {})
    bench = Bench(Engine(family_for(*load(model, device="cpu")), ENCODER_BYTES))
    encoder = bench.engine.encoder
    live = {("no_heal",): Live(model, encoder, heal="never"), ("default", "settled"): Live(model, encoder)}
    return Subject(bench, METHODS, column_weights(bench), live)


def run_shard(job: Job) -> list[Result]:
    """The results of a job."""
    subject = subject_for(job.model)
    return [
        result
        for seed in range(job.first, job.stop)
        for event in job.events
        for result in run_case(subject, job.scene, event, seed, studied=seed < job.num_studied)
    ]


def kept_shard(task: tuple[Path | None, Job]) -> list[Result]:
    """The results of a job, from the file of it in a folder where an earlier run left one."""
    folder, job = task
    if folder is None:
        return run_shard(job)
    file = folder / f"{job.scene}-{job.first}-{job.stop}.json"
    if not file.exists():
        half = file.with_suffix(".part")
        half.write_text(json.dumps([asdict(result) for result in run_shard(job)]))
        half.rename(file)
    return [read_result(fields) for fields in json.loads(file.read_text())]
