"""The same data gives the same pixels, in every process."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import CELL, Screen, Shift, Shot
from kamera_agent.pocket.style import LOOKS, Looks
from kamera_agent.pocket.world import STORIES, World

DIGEST = """
import hashlib, numpy as np
from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.screen import Screen
from kamera_agent.pocket.world import STORIES, World
digest = hashlib.sha256()
for story in STORIES:
    for picture in World(np.random.default_rng(5)).window(story, 4):
        digest.update((draw_screen if isinstance(picture, Screen) else draw_shot)(picture).tobytes())
print(digest.hexdigest())
"""


def test_two_processes_draw_the_same() -> None:
    digest = hashlib.sha256()
    for story in STORIES:
        for picture in World(np.random.default_rng(5)).window(story, 4):
            pixels = draw_screen(picture) if isinstance(picture, Screen) else draw_shot(picture)
            digest.update(pixels.tobytes())
    output = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True).stdout
    assert output.strip() == digest.hexdigest()


@pytest.mark.parametrize("look", LOOKS)
def test_screens_are_real_size(look: str) -> None:
    """48 cells or more, and 8 cards or more, below the bar and in different cells."""
    world = World(np.random.default_rng(1), looks=LOOKS[look])
    for _ in range(20):
        for screen in world.window("links", 3):
            assert isinstance(screen, Screen)
            assert screen.columns * screen.rows >= 48
            cells = [card.cell for card in screen.cards]
            assert len(set(cells)) == len(cells) >= 8
            assert min(cells) >= screen.columns
            assert draw_screen(screen).shape == (screen.rows * CELL, screen.columns * CELL, 3)


def test_pictures_look_as_they_are_asked_to() -> None:
    """Sizes, quality and jitter are those of the looks. By default, texts have an offset of up to 3 pixels."""
    plain = Looks(label_sizes=(9,), value_sizes=(10,), jpeg_qualities=(33,), jitter=0)
    source = World(np.random.default_rng(3), looks=plain)
    for screen in source.window("links", 3):
        assert isinstance(screen, Screen)
        assert (screen.style.label_px, screen.style.value_px, screen.style.jpeg) == (9, 10, 33)
        assert {screen.title_shift, *(card.shift for card in screen.cards)} == {Shift(0, 0)}
    for shot in source.window("moves", 2):
        assert isinstance(shot, Shot)
        assert shot.jpeg == 33
    usual = World(np.random.default_rng(3)).window("links", 3)
    shifts = {card.shift for screen in usual if isinstance(screen, Screen) for card in screen.cards}
    assert {max(map(abs, shift)) for shift in shifts} == {0, 1, 2, 3}


def test_a_card_leaves_what_is_far_from_it_alone() -> None:
    """JPEG blurs colours over the edge of a cell, but no further than the next cell."""
    screen = next(p for p in World(np.random.default_rng(2)).window("links", 3) if isinstance(p, Screen))
    fewer = Screen(
        screen.kind, screen.title, screen.title_shift, screen.columns, screen.rows, screen.cards[1:], screen.style
    )
    differs = (draw_screen(screen) != draw_screen(fewer)).any(-1)
    cells = differs.reshape(screen.rows, CELL, screen.columns, CELL).any(axis=(1, 3)).ravel()
    near = {screen.cards[0].cell + row * screen.columns + step for row in (-1, 0, 1) for step in (-1, 0, 1)}
    assert screen.cards[0].cell in set(np.flatnonzero(cells)) <= near
