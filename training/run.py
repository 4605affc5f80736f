"""A training from the seed to the checkpoint."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.pocket.style import Looks
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.words import SHOWN
from kamera_agent.runtime.families import family_for
from training.bank import Bank
from training.decoding import Decoder, Lessons, draw_windows
from training.frame import Frame, prime
from training.gallery import Drawn, draw_all, sketch
from training.reading import Reading
from training.recipe import Recipe, Stage
from training.start import scale_layers, set_embeddings, word_ids
from training.study import LossOf, Report, study
from training.tower import Tower

READ_RATE = 3e-3
# Scale of the initial features. The tower would spend hundreds of steps on making larger ones smaller.
FEATURE_SCALE = 0.05
SMOOTHING, LOG_EVERY = 50, 100
EXAM_PICTURES, EXAM_WINDOWS = 200, 96


def train(recipe: Recipe, folder: Path, seed: int) -> None:
    """Train and write the checkpoint to folder. An interrupted training resumes from the states in folder/training."""
    state = folder / "training"
    state.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, processor = build_model(recipe.shape, seed=seed), build_processor(recipe.shape)
    family = family_for(model, processor)
    tower = Tower(model.model.visual, processor.image_processor)
    frame = Frame.make(model.config.text_config.hidden_size, seed)
    set_embeddings(model, processor.tokenizer)
    with torch.no_grad():
        model.model.visual.merger.mlp[-1].weight.mul_(FEATURE_SCALE)
    scale_layers(model.model.language_model)
    prime(model.model.language_model, frame)
    with _progress() as progress:
        gallery = _draw(recipe, recipe.gallery.count, np.random.default_rng((seed, 1)))
        embeddings = model.get_input_embeddings().weight.detach()[word_ids(processor.tokenizer, SHOWN)].clone()
        reading = Reading(tower, frame, embeddings, gallery, recipe.gallery.cells, varied=recipe.gallery.varied)
        _learn_to_read(reading, tower, recipe, state, seed, progress)
        bank = Bank(tower, gallery, np.random.default_rng((seed, 4)) if recipe.gallery.varied else None)
        _learn_tasks(Decoder(family), Lessons(family, bank), bank, recipe, state, seed, progress)
    save_checkpoint(model, processor, folder)


def save_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """Write a plain Hugging Face checkpoint."""
    for part in (model, processor.tokenizer, processor.image_processor):
        part.save_pretrained(folder)


def _draw(recipe: Recipe, count: int, rng: np.random.Generator) -> list[Drawn]:
    return draw_all(sketch(count, rng, recipe.gallery.size, recipe.looks, recipe.gallery.stories))


def _learn_to_read(reading: Reading, tower: Tower, recipe: Recipe, state: Path, seed: int, progress: Progress) -> None:
    study(
        state / "reading.safetensors",
        {"tower": tower.visual},
        lambda done, rng: reading.loss(rng),
        peak_rate=READ_RATE,
        num_steps=recipe.read_steps,
        seed=seed + 1,
        report=_reporter(progress, "reading", recipe.read_steps),
    )
    exam = _draw(recipe, EXAM_PICTURES, np.random.default_rng((seed, 2)))
    progress.console.print(f"cells read: {reading.accuracy(exam):.4f}")
    tower.visual.requires_grad_(False)


def _learn_tasks(
    decoder: Decoder, lessons: Lessons, bank: Bank, recipe: Recipe, state: Path, seed: int, progress: Progress
) -> None:
    for number, (name, stage) in enumerate(recipe.stages.items()):
        study(
            state / f"{name}.safetensors",
            {"text": decoder.text, "probes": decoder.probes},
            _losses(decoder, lessons, bank, stage, recipe.looks),
            peak_rate=stage.rate,
            num_steps=stage.num_steps,
            seed=seed + 2 + number,
            report=_reporter(progress, name, stage.num_steps),
        )
        rng = np.random.default_rng((seed, 3))
        windows = [*filter(bank.holds, draw_windows(EXAM_WINDOWS, recipe.exam, rng, recipe.looks))]
        right, asked = decoder.grade(lessons.batch(windows, rng, recipe.exam.tasks), bank.table)
        progress.console.print(" ".join(f"{task} {right[task] / max(asked[task], 1):.3f}" for task in TASKS))


def _losses(decoder: Decoder, lessons: Lessons, bank: Bank, stage: Stage, looks: Looks) -> LossOf:
    def loss_of(done: float, rng: np.random.Generator) -> torch.Tensor:
        until = min(course.until for course in stage.courses if done < course.until)
        courses = [course for course in stage.courses if course.until == until]
        course = courses[rng.integers(len(courses))]
        windows = filter(bank.holds, draw_windows(course.batch, course, rng, looks))
        return decoder.loss(lessons.batch(list(windows), rng, course.tasks, course.times), bank.table)

    return loss_of


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _reporter(progress: Progress, stage: str, num_steps: int) -> Report:
    """A function that shows the steps of a stage and the running mean of its loss."""
    task = progress.add_task(stage, total=num_steps, loss=float("nan"))
    recent: deque[float] = deque(maxlen=SMOOTHING)

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        mean = sum(recent) / len(recent)
        progress.update(task, completed=step, loss=mean)
        if step % LOG_EVERY == 0:
            progress.console.print(f"{stage} {step} {mean:.4f}")

    return report
