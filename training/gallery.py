"""Drawn pictures that the tower learns to read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, cycle, islice
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch

from kamera_agent.chunk import Chunk
from kamera_agent.pocket import renderer
from kamera_agent.pocket.screen import CELL, SHOT_TIMES, Picture
from kamera_agent.pocket.style import Looks
from kamera_agent.pocket.world import STORIES, Size, Story, World
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels

PICTURES_PER_WINDOW = 4
AT_ONCE = 50
# Fewer pictures are drawn before other processes have started.
WORTH_PROCESSES = 1000


class Drawn(NamedTuple):
    """A picture and its frames [F, H, W, 3] uint8 RGB."""

    picture: Picture
    frames: Pixels


def draw(picture: Picture) -> Drawn:
    """A picture with its frames."""
    return Drawn(picture, renderer.draw(picture))


def cut(frames: Pixels) -> torch.Tensor:
    """Cells [N, 3, CELL, CELL], row by row, of the mean of frames [F, H, W, 3]; float, 0 to 255."""
    pixels = torch.from_numpy(frames.astype(np.float32)).mean(0)
    split = pixels.unflatten(1, (-1, CELL)).unflatten(0, (-1, CELL))
    cells: torch.Tensor = split.permute(0, 2, 4, 1, 3).flatten(0, 1)
    return cells


def chunk_of(family: Family, frames: Pixels, namespace: str = "pocket") -> Chunk:
    """The chunk of frames [F, H, W, 3] uint8 RGB: one frame is a screen, two are a shot."""
    if len(frames) == 1:
        return family.image_chunk(frames[0], namespace)
    return family.frames_chunk(Frames(frames, SHOT_TIMES), namespace)


def draw_all(pictures: Sequence[Picture]) -> list[Drawn]:
    """Draw pictures, in several processes if there are many."""
    if len(pictures) < WORTH_PROCESSES:
        return [draw(picture) for picture in pictures]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        return list(workers.map(draw, pictures, chunksize=AT_ONCE))


def sketch(
    count: int, rng: np.random.Generator, size: Size, looks: Looks, stories: Sequence[Story] = STORIES
) -> list[Picture]:
    """Pictures of the stories in turn, as data."""
    world = World(rng, size, looks)
    windows = (world.window(story, PICTURES_PER_WINDOW) for story in cycle(stories))
    return list(islice(chain.from_iterable(windows), count))
