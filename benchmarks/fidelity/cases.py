"""Seeded cases: a window of pictures, and a question of each task of a scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.world import FULL_SIZE, Size, Story, World

# "now": the place of an object in the last shot. It is a separate task if the shots change places.
Asked = Task | Literal["now"]


class Scene(NamedTuple):
    """A story and the tasks about it. least: the fewest pictures that the tasks need."""

    story: Story
    tasks: tuple[Asked, ...]
    least: int


# Only a window with a single change has a diff, and its count is always one: so the two have scenes of their own.
SCENES: dict[str, Scene] = {
    "one_change": Scene("changes", ("diff",), 2),
    "changes": Scene("changes", ("count", "read", "find"), 2),
    "two_joins": Scene("links", ("join2",), 2),
    "three_joins": Scene("links", ("join3",), 3),
    "moves": Scene("moves", ("track",), 1),
    "now": Scene("moves", ("now",), 1),
}


class Ground(NamedTuple):
    """The source of cases: scenes by name, size and looks of pictures, and a function that returns the questions."""

    scenes: Mapping[str, Scene]
    size: Size
    looks: Looks
    ask: Callable[[Sequence[Picture]], list[Question]]


POCKET_GROUND = Ground(SCENES, FULL_SIZE, LOOKS["train"], ask)


class Case(NamedTuple):
    """The pictures of a window, in order, and a question of each task."""

    window: tuple[Picture, ...]
    questions: dict[Asked, Question]


def draw_case(
    ground: Ground,
    scene: str,
    num_pictures: int,
    seed: int,
    *,
    spared: int = 0,
    same_last: bool = False,
    reorders: bool = False,
) -> Case:
    """A case of a scene.

    spared: no answer depends on this many pictures at the front. same_last: the last picture that an answer depends
    on is the same for all questions. reorders: the pictures are going to change places.
    """
    story, tasks, _ = ground.scenes[scene]
    rng = np.random.default_rng((seed, num_pictures, spared, sum(map(ord, scene))))
    world = World(rng, ground.size, ground.looks)
    while True:
        window = world.window(story, num_pictures)
        asked = [question for question in ground.ask(window) if min(question.needs) >= spared]
        chosen: dict[Asked, Question] = {}
        for task in tasks:
            last = max(chosen[tasks[0]].needs) if chosen and same_last else None
            fitting = [q for q in asked if _task(q, reorders) == task and last in (None, max(q.needs))]
            if fitting:
                chosen[task] = fitting[rng.integers(len(fitting))]
        if len(chosen) == len(tasks):
            return Case(tuple(window), chosen)


def _task(question: Question, reorders: bool) -> Asked:
    """The task of a question. A question about the last shot is "now" if the shots are going to change places."""
    return "now" if reorders and question.task == "track" and len(question.needs) == 1 else question.task
