"""How long to train what."""

from __future__ import annotations

from dataclasses import dataclass

from kamera_agent.pocket.model import POCKET, Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training of two stages. gallery: pictures that the tower learns from."""

    shape: Shape
    gallery: int
    read_steps: int
    task_steps: int


POCKET_RECIPE = Recipe(POCKET, gallery=9000, read_steps=3000, task_steps=1750)
