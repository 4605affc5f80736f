"""The pages that agents of the measured machine see."""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

import numpy as np

from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.world import Size, World
from kamera_agent.vision.image import Pixels

# A page of 1288 x 728 pixels, in cells of a token each.
PAGE = Size(grids=((23, 13),))


@lru_cache(maxsize=256)
def draw(screen: str) -> Pixels:
    """A page of the pocket world; each name gives another."""
    world = World(np.random.default_rng(crc32(screen.encode())), PAGE)
    while not isinstance(page := world.tell("links", 1)[0], Screen):
        pass
    return draw_screen(page)
