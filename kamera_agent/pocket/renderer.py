"""Screens and shots as pixels. The same data gives the same pixels."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kamera_agent.pocket.screen import CELL, Card, Mark, Picture, Screen, Shift, Shot
from kamera_agent.pocket.style import FONTS, Colour, Style
from kamera_agent.vision.image import Pixels

MARGIN = 2
RADIUS = 5
LABEL_Y, VALUE_Y = -11, 9
TEXT_WIDTH = 46
HALF_MARK = 13  # half the side of a mark, in pixels
GRAIN = 6

ZONE_COLOURS: dict[str, Colour] = {
    "grass": (88, 148, 72),
    "road": (118, 118, 124),
    "water": (64, 120, 190),
    "sand": (214, 190, 130),
}
MARK_COLOURS: dict[str, Colour] = {
    "red": (205, 36, 40),
    "white": (250, 250, 250),
    "black": (18, 18, 20),
    "pink": (245, 130, 190),
    "orange": (250, 140, 20),
}
OUTLINE: Colour = (60, 50, 50)


def draw(picture: Picture) -> Pixels:
    """Frames [F, rows · CELL, columns · CELL, 3] uint8 RGB: one for a screen, two for a shot."""
    return draw_screen(picture)[None] if isinstance(picture, Screen) else draw_shot(picture)


def draw_screen(screen: Screen) -> Pixels:
    """Pixels [rows · CELL, columns · CELL, 3] uint8 RGB."""
    theme = screen.style.theme
    image = Image.new("RGB", (screen.columns * CELL, screen.rows * CELL), theme.page)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, image.width - 1, CELL - 1), fill=theme.bar)
    middle = CELL // 2
    font = fitting_font(screen.style.font, screen.style.value_px, screen.title)
    at = (middle + screen.title_shift.right, middle + screen.title_shift.down)
    draw.text(at, screen.title, theme.title, font, anchor="mm")
    for card in screen.cards:
        _draw_card(draw, card, screen.columns, screen.style)
    return _store(image, screen.style.jpeg)


def draw_shot(shot: Shot) -> Pixels:
    """Frames [2, rows · CELL, columns · CELL, 3] uint8 RGB."""
    zones = np.array([ZONE_COLOURS[zone] for zone in shot.zones], dtype=np.int16).reshape(shot.rows, shot.columns, 3)
    ground = zones.repeat(CELL, axis=0).repeat(CELL, axis=1)
    rng = np.random.default_rng(shot.seed)
    ground = ground + rng.integers(-GRAIN, GRAIN + 1, ground.shape, dtype=np.int16)
    frames = []
    for moved in (False, True):
        image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for mark in shot.marks:
            drift = mark.drift if moved else Shift(0, 0)
            _draw_mark(draw, mark, drift, shot.columns)
        frames.append(_store(image, shot.jpeg))
    return np.stack(frames)


def _draw_card(draw: ImageDraw.ImageDraw, card: Card, columns: int, style: Style) -> None:
    row, column = divmod(card.cell, columns)
    left, top = column * CELL, row * CELL
    box = (left + MARGIN, top + MARGIN, left + CELL - MARGIN - 1, top + CELL - MARGIN - 1)
    draw.rounded_rectangle(box, RADIUS, style.theme.card, style.theme.border)
    x, y = left + CELL // 2 + card.shift.right, top + CELL // 2 + card.shift.down
    for text, size, colour, down in (
        (card.label, style.label_px, style.theme.label, LABEL_Y),
        (card.value, style.value_px, style.theme.value, VALUE_Y),
    ):
        draw.text((x, y + down), text, colour, fitting_font(style.font, size, text), anchor="mm")


def _draw_mark(draw: ImageDraw.ImageDraw, mark: Mark, drift: Shift, columns: int) -> None:
    row, column = divmod(mark.cell, columns)
    x = column * CELL + CELL // 2 + mark.shift.right + drift.right
    y = row * CELL + CELL // 2 + mark.shift.down + drift.down
    fill = MARK_COLOURS[mark.colour]
    if mark.shape == "ball":
        draw.ellipse((x - HALF_MARK, y - HALF_MARK, x + HALF_MARK, y + HALF_MARK), fill, OUTLINE)
    else:
        draw.polygon([(x + dx * HALF_MARK, y + dy * HALF_MARK) for dx, dy in OUTLINES[mark.shape]], fill, OUTLINE)


def _star() -> list[tuple[float, float]]:
    turns = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.15, 0.48)
    return list(zip((radii * np.cos(turns)).tolist(), (radii * np.sin(turns)).tolist(), strict=True))


OUTLINES: dict[str, list[tuple[float, float]]] = {
    "star": _star(),
    "box": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "cross": [
        *((-0.35, -1), (0.35, -1), (0.35, -0.35), (1, -0.35), (1, 0.35), (0.35, 0.35)),
        *((0.35, 1), (-0.35, 1), (-0.35, 0.35), (-1, 0.35), (-1, -0.35), (-0.35, -0.35)),
    ],
    "gem": [(0, -1.1), (0.9, 0), (0, 1.1), (-0.9, 0)],
    "cone": [(0, -1.1), (1, 0.9), (-1, 0.9)],
}


@lru_cache(maxsize=4096)
def fitting_font(name: str, size: int, text: str) -> ImageFont.FreeTypeFont:
    """The font in the largest size, in pixels, up to size in which the text fits a card."""
    font = _font(name, size)
    return font if font.getlength(text) <= TEXT_WIDTH else fitting_font(name, size - 1, text)


@lru_cache(maxsize=128)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    # The basic layout engine, because shaping libraries differ between machines.
    return ImageFont.truetype(FONTS / name, size, layout_engine=ImageFont.Layout.BASIC)


def _store(image: Image.Image, quality: int) -> Pixels:
    """The picture after JPEG compression, as many screenshots arrive."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
