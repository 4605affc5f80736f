"""Many drawn pictures to learn reading from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np

from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import Picture, Screen
from kamera_agent.pocket.style import Looks
from kamera_agent.pocket.world import STORIES, Size, World
from kamera_agent.vision.image import Pixels

PICTURES_A_WINDOW = 4
AT_ONCE = 50


class Drawn(NamedTuple):
    """A picture and its frames [F, H, W, 3] uint8 RGB."""

    picture: Picture
    frames: Pixels


def draw(picture: Picture) -> Drawn:
    """Draw one picture."""
    return Drawn(picture, draw_screen(picture)[None] if isinstance(picture, Screen) else draw_shot(picture))


def draw_all(pictures: Sequence[Picture]) -> list[Drawn]:
    """Draw pictures on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        return list(workers.map(draw, pictures, chunksize=AT_ONCE))


def sketch(count: int, rng: np.random.Generator, size: Size, looks: Looks) -> list[Picture]:
    """Pictures of all stories in equal parts, not drawn yet."""
    return list(islice(_endless(World(rng, size, looks)), count))


def _endless(world: World) -> Iterator[Picture]:
    while True:
        for story in STORIES:
            yield from world.window(story, PICTURES_A_WINDOW)
