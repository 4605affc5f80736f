"""Seeded cases: a window of pictures and one question of one task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.world import Story, World

STORIES: dict[Task, tuple[Story, ...]] = {
    "read": ("changes", "links"),
    "find": ("changes", "links"),
    "diff": ("changes",),
    "count": ("changes",),
    "join2": ("links",),
    "join3": ("links",),
    "track": ("moves",),
}


# Pictures that a task needs at least.
LEAST: dict[Task, int] = {"read": 1, "find": 1, "diff": 2, "count": 2, "join2": 2, "join3": 3, "track": 1}


class Case(NamedTuple):
    """What is looked at, in order, and what is asked."""

    window: tuple[Picture, ...]
    question: Question


def draw_case(task: Task, num_pictures: int, seed: int, *, spared: int = 0) -> Case:
    """A case of a task. spared: so many pictures at the front are not needed for the answer."""
    rng = np.random.default_rng((seed, num_pictures, spared, sum(map(ord, task))))
    world = World(rng)
    while True:
        window = world.window(STORIES[task][seed % len(STORIES[task])], num_pictures)
        questions = [q for q in ask(window) if q.task == task and min(q.needs) >= spared]
        if questions:
            return Case(tuple(window), questions[rng.integers(len(questions))])
