"""What an agent sees, step by step: pages that say who is where, and a question about each."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

from benchmarks.serve.clients import Turn
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.world import Size, World

# A page of 1288 x 728 pixels, in cells of a token each.
PAGE = Size(grids=((23, 13),))


def walk(seed: int) -> Iterator[Turn]:
    """Turns without replies. Every page is new: none is seen twice."""
    rng = np.random.default_rng(seed)
    world = World(rng, PAGE)
    while True:
        (page,) = world.tell("links", 1)
        if isinstance(page, Screen) and page.kind == "rooms":
            card = page.cards[rng.integers(len(page.cards))]
            yield Turn(_url(page), f"Where is {card.label}?")


def _url(page: Screen) -> str:
    buffer = BytesIO()
    Image.fromarray(draw_screen(page)).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
