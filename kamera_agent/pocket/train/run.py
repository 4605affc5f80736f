"""A training from seed to checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kamera_agent.pocket.model import build_model, build_processor
from kamera_agent.pocket.style import LOOKS
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.tokenizer import SPACE
from kamera_agent.pocket.train.bank import Bank
from kamera_agent.pocket.train.decoding import (
    COURSES,
    GAZE_WEIGHT,
    PROBE_WEIGHT,
    Decoder,
    Lessons,
    course_at,
    draw_windows,
)
from kamera_agent.pocket.train.frame import Frame, prime
from kamera_agent.pocket.train.gallery import draw_all, sketch
from kamera_agent.pocket.train.reading import DENSE, Reading
from kamera_agent.pocket.train.recipe import Recipe
from kamera_agent.pocket.train.study import Tell, study
from kamera_agent.pocket.train.tower import Tower
from kamera_agent.pocket.weights import save_checkpoint, word_ids
from kamera_agent.pocket.words import SHOWN, WORDS
from kamera_agent.runtime.families import family_for

READ_RATE, TASK_RATE = 3e-3, 2e-3
# Share of a layer's usual say, and length of the embeddings of words that screens show, when training begins.
QUIET, EMBEDDING_NORM = 0.2, 2.0
SMOOTHING, LOG_EVERY = 50, 100
EXAM_PICTURES, EXAM_WINDOWS = 200, 96
LOOKS_OF_TRAINING = LOOKS["train"]


def train(recipe: Recipe, folder: Path, seed: int) -> None:
    """Train and write the checkpoint to folder. The states of the stages lie in `training/` there, to go on from."""
    state = folder / "training"
    state.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, processor = build_model(recipe.shape, seed=seed), build_processor(recipe.shape)
    family = family_for(model, processor)
    tower = Tower(model.model.visual, processor.image_processor)
    frame = Frame.make(model.config.text_config.hidden_size, seed)
    prepare(model, processor.tokenizer)
    prime(model.model.language_model, frame)
    with _progress() as progress:
        gallery = draw_all(sketch(recipe.gallery, np.random.default_rng((seed, 1)), DENSE, LOOKS_OF_TRAINING))
        embeddings = model.get_input_embeddings().weight.detach()[word_ids(processor.tokenizer, SHOWN)].clone()
        _learn_to_read(Reading(tower, frame, embeddings, gallery), tower, recipe, state, seed, progress)
        bank = Bank(tower, gallery)
        _learn_tasks(Decoder(family), Lessons(family, bank), bank, recipe, state, seed, progress)
    save_checkpoint(model, processor, folder)


def _learn_to_read(reading: Reading, tower: Tower, recipe: Recipe, state: Path, seed: int, progress: Progress) -> None:
    study(
        state / "reading.safetensors",
        {"tower": tower.visual},
        lambda done, rng: reading.loss(rng),
        peak_rate=READ_RATE,
        num_steps=recipe.read_steps,
        seed=seed + 1,
        tell=_teller(progress, "reading", recipe.read_steps),
    )
    exam = draw_all(sketch(EXAM_PICTURES, np.random.default_rng((seed, 2)), DENSE, LOOKS_OF_TRAINING))
    progress.console.print(f"cells read: {reading.accuracy(exam):.4f}")
    tower.visual.requires_grad_(False)


def _learn_tasks(
    decoder: Decoder, lessons: Lessons, bank: Bank, recipe: Recipe, state: Path, seed: int, progress: Progress
) -> None:
    def loss_of(done: float, rng: np.random.Generator) -> torch.Tensor:
        course = course_at(done)
        windows = filter(bank.holds, draw_windows(course.batch, course, rng, LOOKS_OF_TRAINING))
        answers, probes, gazes = decoder.loss(lessons.batch(list(windows), rng), bank.table)
        return answers + PROBE_WEIGHT * probes + GAZE_WEIGHT * gazes

    study(
        state / "tasks.safetensors",
        {"text": decoder.text, "probes": decoder.probes},
        loss_of,
        peak_rate=TASK_RATE,
        num_steps=recipe.task_steps,
        seed=seed + 2,
        tell=_teller(progress, "tasks", recipe.task_steps),
    )
    rng = np.random.default_rng((seed, 3))
    windows = [*filter(bank.holds, draw_windows(EXAM_WINDOWS, COURSES[-1], rng, LOOKS_OF_TRAINING))]
    right, asked = decoder.grade(lessons.batch(windows, rng), bank.table)
    progress.console.print(" ".join(f"{task} {right[task] / max(asked[task], 1):.3f}" for task in TASKS))


@torch.no_grad()
def prepare(model: Any, tokenizer: Any) -> None:
    """Give the words that screens show embeddings at right angles, and each word the same with a space before it."""
    embeddings = model.get_input_embeddings().weight
    scale = EMBEDDING_NORM
    noise = 0.1 * embeddings.std() * torch.randn_like(embeddings)
    embeddings[word_ids(tokenizer, SHOWN)] = scale * torch.linalg.qr(torch.randn(embeddings.shape[1], len(SHOWN)))[0].mT
    bare, spaced = word_ids(tokenizer, WORDS), word_ids(tokenizer, [SPACE + word for word in WORDS])
    embeddings[spaced] = embeddings[bare] + noise[bare]
    # Layers that say little at first: else the codes would drown before the upper ones can read them.
    for layer in model.model.language_model.layers:
        layer.self_attn.o_proj.weight.mul_(QUIET)
        layer.mlp.down_proj.weight.mul_(QUIET)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _teller(progress: Progress, stage: str, num_steps: int) -> Tell:
    """Show a stage on the progress bar, its loss as a running mean."""
    task = progress.add_task(stage, total=num_steps, loss=float("nan"))
    mean: list[float] = []

    def tell(step: int, loss: float) -> None:
        mean.append(loss)
        progress.update(task, completed=step, loss=sum(mean[-SMOOTHING:]) / len(mean[-SMOOTHING:]))
        if step % LOG_EVERY == 0:
            progress.console.print(f"{stage} {step} {sum(mean[-SMOOTHING:]) / len(mean[-SMOOTHING:]):.4f}")

    return tell
