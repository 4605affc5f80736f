"""Seeded cases: pictures, and a question of each task of a scene about the window that an event leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from kamera_agent.pocket.screen import Picture
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.tasks import Question, Task, ask
from kamera_agent.pocket.world import FULL_SIZE, Size, Story, World

# "track": how often an object changed. "now": its place in the last shot.
Asked = Task | Literal["now"]


class Scene(NamedTuple):
    """A story and the tasks about it, each with the fewest pictures that it needs."""

    story: Story
    tasks: Mapping[Asked, int]


# Only a window with a single change has a diff, and its count is always one: so the two have scenes of their own.
SCENES: dict[str, Scene] = {
    "one_change": Scene("changes", {"diff": 2}),
    "changes": Scene("changes", {"count": 2, "read": 2, "find": 2}),
    "joins": Scene("links", {"join2": 2, "join3": 3}),
    "moves": Scene("moves", {"track": 2, "now": 1}),
}


class Ground(NamedTuple):
    """The source of cases: scenes by name, size and looks of pictures, and a function that returns the questions."""

    scenes: Mapping[str, Scene]
    size: Size
    looks: Looks
    ask: Callable[[Sequence[Picture]], list[Question]]


POCKET_GROUND = Ground(SCENES, FULL_SIZE, LOOKS["train"], ask)


class Case(NamedTuple):
    """The pictures of a case, the strangers last, and a question of each task about the window after the event."""

    pictures: tuple[Picture, ...]
    questions: dict[Asked, Question]


def draw_case(
    ground: Ground,
    scene: str,
    num_pictures: int,
    after: Sequence[int],
    seed: int,
    *,
    num_strangers: int = 0,
    same_last: bool = False,
) -> Case:
    """A case of a scene.

    after: indices of the pictures in the window that is asked about, in order. num_strangers: pictures of another
    story of the same kind. same_last: the last picture that an answer depends on is the same for all questions.
    """
    story, tasks = ground.scenes[scene]
    rng = np.random.default_rng((seed, num_pictures, sum(map(ord, scene))))
    world = World(rng, ground.size, ground.looks)
    wanted = [task for task, least in tasks.items() if least <= len(after)]
    while True:
        pictures = world.window(story, num_pictures)
        asked = ground.ask([pictures[index] for index in after])
        chosen: dict[Asked, Question] = {}
        for task in wanted:
            last = max(chosen[wanted[0]].needs) if chosen and same_last else None
            fitting = [q for q in asked if _task(q) == task and last in (None, max(q.needs))]
            if fitting:
                chosen[task] = fitting[rng.integers(len(fitting))]
        if len(chosen) == len(wanted):
            strangers = world.window(story, num_strangers) if num_strangers else []
            return Case((*pictures, *strangers), chosen)


def _task(question: Question) -> Asked:
    """The task of a question. One about a single shot is "now"."""
    return "now" if question.task == "track" and len(question.needs) == 1 else question.task
