"""What is trained, on which pictures, in how many steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kamera_agent.pocket.model import Shape
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.tasks import TASKS, Task
from kamera_agent.pocket.world import FULL_SIZE, Size, Story

# Patches of 28 pixels, of which the merger makes one token per cell of 56 x 56 pixels.
POCKET_SHAPE = Shape(
    hidden=128,
    intermediate=384,
    num_layers=5,
    num_heads=4,
    num_kv_heads=2,
    sections=(6, 5, 5),
    vision_depth=2,
    vision_hidden=128,
    vision_heads=4,
    vision_intermediate=256,
    initializer_range=0.08,
    max_positions=4096,
    patch_size=28,
    vision_window=56,
    tied=True,
)

# Small pictures full of cards, so that few cells are empty.
DENSE = Size(grids=((4, 4), (5, 4), (4, 5), (6, 3)), min_cards=10, max_cards=12)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures that the tower learns from: number, size and stories.

    cells: the cells in one step: cells of screens that show something, cells of shots, empty cells of screens.
    varied: cells are shown in other looks as well.
    """

    count: int
    size: Size
    stories: tuple[Story, ...]
    cells: tuple[int, int, int]
    varied: bool = True


@dataclass(frozen=True, slots=True)
class Course:
    """The windows of a stage up to a share of its steps. Courses that end together take its steps at random.

    pictures: the numbers of pictures to draw from. batch: windows per step. shares: of the stories, in their order.
    times: how many times as many questions are asked about a window as usual.
    """

    until: float
    size: Size
    pictures: tuple[int, ...]
    batch: int
    shares: tuple[float, ...]
    tasks: tuple[Task, ...] = TASKS
    times: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the decoder: its courses, its steps, and its highest learning rate."""

    courses: tuple[Course, ...]
    num_steps: int
    rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training: the tower learns to read in read_steps, then the decoder learns the tasks, stage by stage.

    exam: the windows that grade the decoder after every stage.
    """

    shape: Shape
    looks: Looks
    gallery: Gallery
    read_steps: int
    stages: Mapping[str, Stage]
    exam: Course


SMALL_SIZE = Size(((4, 3), (5, 3)), min_cards=4, max_cards=6, min_marks=2, max_marks=4)
EXAM = Course(1.0, FULL_SIZE, (1, 2, 3, 3, 4, 4), 12, (0.55, 0.25, 0.05, 0.15, 0))
MIDDLE_SIZE = Size(((5, 4), (6, 4), (5, 5)), min_cards=6, max_cards=10)

TASKS_STAGE = Stage(
    (
        Course(0.12, SMALL_SIZE, (2, 2, 3), 24, (0.3, 0.35, 0.2, 0.15, 0)),
        Course(0.5, MIDDLE_SIZE, (1, 2, 3, 3, 4), 14, (0.4, 0.35, 0.1, 0.15, 0)),
        Course(0.75, FULL_SIZE, (1, 2, 3, 3, 4, 4), 12, (0.3, 0.35, 0.2, 0.15, 0)),
        EXAM,
    ),
    num_steps=2800,
    rate=2e-3,
)
# Counting is learned last, and a window has only one question about it: this stage has many small windows of changes.
COUNTING_STAGE = Stage(
    (Course(1.0, FULL_SIZE, (2, 2, 2, 3), 20, (0.8, 0.13, 0.03, 0.04, 0)),),
    num_steps=800,
    rate=6e-4,
)
# Windows of up to twelve pictures of up to 200 cells, in turn with those of before, so that nothing is unlearned.
LARGE_SIZE = Size(((12, 8), (10, 10), (14, 10), (16, 12), (14, 14), (20, 10)), min_cards=8, max_cards=14)
MIXED_SIZE = Size((*FULL_SIZE.grids, *LARGE_SIZE.grids), min_cards=8, max_cards=14)
DAY = (0, 0, 0, 0, 1)
LARGE_STAGE = Stage(
    (
        replace(EXAM, batch=16),
        *COUNTING_STAGE.courses,
        Course(1.0, FULL_SIZE, (6, 8, 10, 12), 4, DAY, times=3),
        Course(1.0, LARGE_SIZE, (3, 4, 5, 6), 4, DAY, times=3),
        Course(1.0, MIXED_SIZE, (8, 10, 12), 2, DAY, times=3),
    ),
    num_steps=2400,
    rate=1e-3,
)

POCKET_RECIPE = Recipe(
    POCKET_SHAPE,
    LOOKS["train"],
    # Few moves: marks are far easier to read than words.
    Gallery(9000, DENSE, ("changes", "links", "links", "changes", "links", "moves"), (448, 64, 96)),
    read_steps=2400,
    stages={"tasks": TASKS_STAGE, "counting": COUNTING_STAGE, "large": LARGE_STAGE},
    exam=EXAM,
)
