"""Seeded cases: a window of pictures and a question of every task of a scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.world import FULL_SIZE, Size, Story, World

# "now": where an object is in the last shot. Where the shots change places, that is a task of its own.
Asked = Task | Literal["now"]


class Scene(NamedTuple):
    """A story and the tasks that are asked about it. least: pictures that the tasks need at least."""

    story: Story
    tasks: tuple[Asked, ...]
    least: int


# Windows with a single change have a scene of their own: else every count would be one.
SCENES: dict[str, Scene] = {
    "one_change": Scene("changes", ("diff",), 2),
    "changes": Scene("changes", ("count", "read", "find"), 2),
    "two_joins": Scene("links", ("join2",), 2),
    "three_joins": Scene("links", ("join3",), 3),
    "moves": Scene("moves", ("track",), 1),
    "now": Scene("moves", ("now",), 1),
}


class Ground(NamedTuple):
    """Where cases come from: scenes by name, how large pictures are and look, and what is asked about them."""

    scenes: Mapping[str, Scene]
    size: Size
    looks: Looks
    ask: Callable[[Sequence[Picture]], list[Question]]


POCKET_GROUND = Ground(SCENES, FULL_SIZE, LOOKS["train"], ask)


class Case(NamedTuple):
    """What is looked at, in order, and a question of each task."""

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

    spared: so many pictures at the front are not needed for the answers. same_last: the last picture that an answer
    rests on is the same for all of them. reorders: the pictures will change places.
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
    """A question that another order answers otherwise is none of "track" where there is going to be one."""
    return "now" if reorders and question.task == "track" and len(question.needs) == 1 else question.task
