"""Training of a backbone: its tower learns to write symbols, its decoder to answer from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_model, save_model

from benchmarks.fidelity.backbones.ground import GROUND, TASKS, ask_in_stems
from benchmarks.fidelity.backbones.models import BACKBONES, build
from benchmarks.fidelity.backbones.reading import Reading
from benchmarks.fidelity.backbones.symbols import Symbols
from benchmarks.fidelity.cores import on_all_cores
from kamera_agent.pocket.words import SHOWN
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.families.base import Family
from training.decoding import Decoder, Lessons, draw_windows
from training.gallery import sketch
from training.recipe import Course
from training.start import scale_layers, set_embeddings, word_ids
from training.study import study

CARD, WEIGHTS = "backbone.json", "model.safetensors"
COURSE = Course(1.0, GROUND.size, pictures=(2, 2, 3, 3, 4), batch=12, shares=(0.6, 0.4, 0, 0, 0), tasks=TASKS)
READ_RATE, TASK_RATE = 3e-3, 2e-3
NUM_EXAM_WINDOWS = 96


class Effort(NamedTuple):
    """Pictures for the tower, and training steps of tower and decoder."""

    pictures: int = 600
    read_steps: int = 450
    task_steps: int = 800


# A step takes longer through more layers, and fewer do.
EFFORTS = {"qwen3_5": Effort(task_steps=600), "gemma4": Effort(task_steps=1350)}


def train(folder: Path, name: str, seed: int, effort: Effort) -> None:
    """Train a backbone into a folder. Resumes an interrupted training of the same effort.

    The folder gets the weights and a card with grades: the relative error of the tower, and the accuracy of the decoder
    over symbols, by task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, processor = build(name, seed)
    family = family_for(model, processor)
    torch.manual_seed(seed)
    set_embeddings(model, processor.tokenizer)
    scale_layers(family.decoder.module)
    with torch.no_grad():
        words = model.get_input_embeddings()(word_ids(processor.tokenizer, SHOWN)).clone()
    symbols = Symbols(words, 1 + getattr(family, "num_levels", 0), seed)
    pictures = sketch(
        effort.pictures, np.random.default_rng((seed, 1)), GROUND.size, GROUND.looks, ("changes", "links")
    )
    reading = Reading(family, symbols, pictures)
    study(
        folder / "reading.safetensors",
        {f"eyes{number}": part for number, part in enumerate(reading.eyes)},
        lambda done, rng: reading.loss(rng),
        peak_rate=READ_RATE,
        num_steps=effort.read_steps,
        seed=seed + 1,
    )
    grades = {"reading": reading.error(), **_learn_tasks(family, symbols, folder, seed, effort.task_steps)}
    save_model(model, folder / WEIGHTS)
    (folder / CARD).write_text(json.dumps({"name": name, "seed": seed, "grades": grades}))


def _learn_tasks(family: Family, symbols: Symbols, folder: Path, seed: int, num_steps: int) -> dict[str, float]:
    decoder, lessons = Decoder(family), Lessons(family, symbols, ask_in_stems, asked=())

    def loss_of(done: float, rng: np.random.Generator) -> torch.Tensor:
        batch = lessons.batch(draw_windows(COURSE.batch, COURSE, rng, GROUND.looks), rng, TASKS)
        symbols.blur(rng)
        return decoder.loss(batch, symbols.table)

    study(
        folder / "tasks.safetensors",
        {"text": decoder.text, "probes": decoder.probes},
        loss_of,
        peak_rate=TASK_RATE,
        num_steps=num_steps,
        seed=seed + 2,
    )
    rng = np.random.default_rng((seed, 3))
    windows = draw_windows(NUM_EXAM_WINDOWS, COURSE, rng, GROUND.looks)
    right, asked = decoder.grade(lessons.batch(windows, rng, TASKS), symbols.clean)
    return {task: right[task] / asked[task] for task in TASKS}


def train_all(folder: Path, seeds: Sequence[int]) -> dict[str, Path]:
    """Folders of all backbones and seeds, by name. Trains those that are missing, on all cores."""
    folders = {f"{name}-{seed}": folder / f"{name}-{seed}" for name in BACKBONES for seed in seeds}
    jobs = [(path, *name.rsplit("-", 1)) for name, path in folders.items() if not is_backbone(path)]
    for _ in on_all_cores(_train, jobs, "training"):
        pass
    return folders


def _train(job: tuple[Path, str, str]) -> None:
    folder, name, seed = job
    train(folder, name, int(seed), EFFORTS.get(name, Effort()))


def is_backbone(folder: Path) -> bool:
    """Whether the training of a backbone into a folder is complete."""
    return (folder / CARD).is_file()


def load_backbone(folder: Path) -> Family:
    """The family of a trained backbone."""
    card = json.loads((folder / CARD).read_text())
    model, processor = build(card["name"], card["seed"])
    load_model(model, folder / WEIGHTS)
    return family_for(model, processor)
