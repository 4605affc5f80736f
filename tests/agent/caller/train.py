"""Train the caller: `python -m tests.agent.caller.train FOLDER`, in the root of the repository."""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from kamera_agent.pocket.model import Shape, build_model, build_processor
from kamera_agent.runtime.families import family_for
from training.run import save_checkpoint
from training.schedule import Schedule

from .exam import take_exam
from .lessons import Course
from .pupil import Pupil
from .shelf import Shelf
from .start import prime
from .weights import open_caller

# Half a million parameters. The caller sees nothing, so its tower is minimal and is not trained.
CALLER = Shape(
    hidden=128,
    intermediate=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    sections=(6, 5, 5),
    vision_depth=1,
    vision_hidden=32,
    vision_heads=2,
    vision_intermediate=32,
    initializer_range=0.08,
    max_positions=4096,
    tied=True,
)


class Stage(NamedTuple):
    """The lessons up to a share of the training, and the weight of the loss for finding the mention of a tool.

    That loss comes late. Finding a mention depends on finding the same word again, which the loss makes harder to
    learn.
    """

    until: float
    course: Course
    subject_weight: float


STAGES = (
    Stage(0.3, Course(tools=1, rounds=3, words=4), 0.0),
    Stage(0.5, Course(tools=1, rounds=3, words=8), 0.2),
    Stage(0.8, Course(tools=2, rounds=3, words=10), 0.2),
    Stage(1.0, Course(tools=2, rounds=3, words=40), 0.2),
)
NUM_STEPS, PEAK_RATE = 1700, 2e-3
LOG_EVERY, SMOOTHING = 50, 50
EXAM_LESSONS, EXAM_SEED = 150, 1


def main(
    folder: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Seed of weights and lessons.")] = 0,
) -> None:
    """Train the caller, write its checkpoint, and grade it on new lessons."""
    torch.set_num_threads(1)
    # Denormal numbers have no effect on the result, but are slow.
    torch.set_flush_denormal(True)
    train(folder, seed)
    grade(folder)


def train(folder: Path, seed: int) -> None:
    """Train from a seed and write the checkpoint, in float16."""
    torch.manual_seed(seed)
    model, processor = build_model(CALLER, seed=seed), build_processor(CALLER)
    pupil, shelf = Pupil(model), Shelf(family_for(model, processor), np.random.default_rng(seed))
    prime(pupil.text)
    schedule = Schedule([pupil.text], PEAK_RATE)
    start, mean = process_time(), 0.0
    for step in range(NUM_STEPS):
        done = step / NUM_STEPS
        stage = next(stage for stage in STAGES if done < stage.until)
        loss = pupil.loss(shelf.take(stage.course), stage.subject_weight)
        schedule.step(loss, done)
        mean += (loss.item() - mean) / min(step + 1, SMOOTHING)
        if (step + 1) % LOG_EVERY == 0:
            typer.echo(f"step {step + 1} of {NUM_STEPS}, loss {mean:.4f}, {process_time() - start:.0f} s of one core")
    save_checkpoint(model.half(), processor, folder)


def grade(folder: Path) -> None:
    """Print the shares of replies that are right word for word."""
    with open_caller(folder) as kamera:
        for tools in (1, 2):
            right, asked = take_exam(kamera, Course(tools, rounds=2, words=8), EXAM_LESSONS, EXAM_SEED + tools)
            shares = ", ".join(f"{kind} {right[kind] / asked[kind]:.3f} of {asked[kind]}" for kind in sorted(asked))
            typer.echo(f"{tools} {'tool' if tools == 1 else 'tools at most'}: {shares}")


if __name__ == "__main__":
    typer.run(main)
