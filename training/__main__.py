"""Train the pocket model: `python -m training FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.recipe import POCKET_RECIPE
from training.run import train


def main(
    folder: Annotated[
        Path, typer.Argument(help="Folder for the checkpoint. An interrupted training is resumed from it.")
    ],
    seed: Annotated[int, typer.Option(help="Seed of the weights, the pictures and the questions.")] = 0,
) -> None:
    """Train the pocket model and write its checkpoint. About two hours on two cores."""
    train(POCKET_RECIPE, folder, seed)


typer.run(main)
