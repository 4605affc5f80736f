"""The media of the demo: six screens and six groups of two frames, drawn from a seed."""

from __future__ import annotations

import numpy as np

from kamera_agent import FramesContent, ImageContent
from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import SHOT_TIMES, Picture, Screen
from kamera_agent.pocket.world import World

SEED = 3
NUM_SHOTS = 6

Media = dict[str, ImageContent | FramesContent]


def sketch() -> dict[str, Picture]:
    """The pictures by name.

    page1 and page2 show prices before and after a change. page3, page4 and page5 show owners, rooms and keys, and
    each leads to the next. page6 shows prices again. yard1 to yard6 are shots of one scene, in the order of time.
    """
    world = World(np.random.default_rng(SEED))
    before, after = world.tell("changes", 2)
    owners, rooms, keys = world.tell("links", 3)
    later = world.tell("changes", 2)[1]
    pages = (before, after, owners, rooms, keys, later)
    yards = world.tell("moves", NUM_SHOTS)
    return {
        **{f"page{number}": page for number, page in enumerate(pages, start=1)},
        **{f"yard{number}": yard for number, yard in enumerate(yards, start=1)},
    }


def draw(picture: Picture) -> ImageContent | FramesContent:
    """The content that the agent passes for a picture."""
    if isinstance(picture, Screen):
        return ImageContent(draw_screen(picture))
    return FramesContent(draw_shot(picture), SHOT_TIMES)
