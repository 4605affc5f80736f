"""What the demo's agent sees: screenshots of the pages of a shop and of the camera of a yard, drawn from a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kamera_agent import ImageContent
from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import Picture, Screen
from kamera_agent.pocket.words import NUMBERS
from kamera_agent.pocket.world import Size, World, is_held_out

SEED = 3
NUM_PRICES, NUM_YARDS = 9, 25


def sketch(columns: int, rows: int) -> dict[str, Picture]:
    """The pictures by name, each of columns x rows cells.

    owners, rooms and keys are pages that lead to each other. prices1, prices2, ... are one page: from each to the next,
    one price changes. yard1, yard2, ... are shots of one scene, in the order of time.
    """
    world = World(np.random.default_rng(SEED), Size(((columns, rows),), min_cards=10))
    pages = dict(zip(("owners", "rooms", "keys"), world.tell("links", 3), strict=True))
    prices = _versions(world.tell("changes", 2)[0], NUM_PRICES)
    yards = world.tell("moves", NUM_YARDS)
    return {
        **pages,
        **{f"prices{number}": page for number, page in enumerate(prices, start=1)},
        **{f"yard{number}": yard for number, yard in enumerate(yards, start=1)},
    }


def draw(picture: Picture) -> ImageContent:
    """The screenshot of a picture: for a shot, its first frame."""
    return ImageContent(draw_screen(picture) if isinstance(picture, Screen) else draw_shot(picture)[0])


def _versions(page: Picture, count: int) -> list[Picture]:
    """A page of prices and its next versions. No price changes twice."""
    assert isinstance(page, Screen)
    versions: list[Picture] = [page]
    values = np.random.default_rng(SEED)
    cards = list(page.cards)
    for place in range(count - 1):
        card = cards[place]
        others = [n for n in NUMBERS if n != card.value and not is_held_out(card.label, n)]
        cards[place] = replace(card, value=str(values.choice(others)))
        versions.append(replace(page, cards=tuple(cards)))
    return versions
