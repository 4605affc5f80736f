"""Looks of screens: fonts, themes and sizes, both those of the training and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FONTS = Path(__file__).parent / "fonts"

TRAIN_FONTS = (
    "Arimo-Regular.ttf",
    "Arimo-Bold.ttf",
    "Tinos-Regular.ttf",
    "Tinos-Bold.ttf",
    "Cousine-Regular.ttf",
    "Roboto-Regular.ttf",
    "Roboto-Bold.ttf",
)
HELD_OUT_FONTS = ("OpenSans-Regular.ttf", "RobotoSlab-Regular.otf")

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a screen, RGB."""

    page: Colour
    card: Colour
    border: Colour
    label: Colour
    value: Colour
    bar: Colour
    title: Colour


def _theme(*colours: str) -> Theme:
    return Theme(*((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours))


TRAIN_THEMES = (
    _theme("f6f7f9", "ffffff", "d0d5db", "57606a", "1f2328", "24292f", "ffffff"),
    _theme("0d1117", "161b22", "30363d", "8b949e", "e6edf3", "010409", "f0f6fc"),
    _theme("eef4fb", "ffffff", "b6cdea", "3d6296", "123a6f", "2f6fc4", "ffffff"),
    _theme("fbf5ea", "fffdf8", "e3d2b0", "8a6d3b", "4c3a1c", "8a5a1f", "fff6e6"),
    _theme("10231b", "17332a", "2b5646", "86b8a2", "e2f5ec", "0a1812", "c9eedd"),
    _theme("f3eefb", "ffffff", "cfbfe8", "6b4fa0", "3a2266", "5b3fa0", "ffffff"),
    _theme("2a1f2d", "3a2b3f", "5c4763", "c4a6cc", "fbeefe", "1a121d", "f3d9fa"),
    _theme("e8f5ee", "f9fffb", "a9d8bf", "2f7a55", "0f4d30", "1f8a5b", "ffffff"),
    _theme("1b2838", "24364b", "3c5675", "9db7d5", "ffffff", "0f1926", "9fd0ff"),
    _theme("fff0f0", "ffffff", "f0bcbc", "a04545", "6b1414", "c23b3b", "ffffff"),
)
HELD_OUT_THEMES = (
    _theme("fdf6e3", "eee8d5", "d5ccb0", "657b83", "073642", "268bd2", "fdf6e3"),
    _theme("1e1e2e", "313244", "45475a", "a6adc8", "cdd6f4", "11111b", "f5c2e7"),
    _theme("dfe7e4", "f4faf7", "9fb5ad", "4a6a60", "20423a", "00695c", "e0f2f1"),
)


@dataclass(frozen=True, slots=True)
class Style:
    """The look of one screen. Sizes are in pixels; jpeg is the JPEG quality of the picture."""

    font: str
    theme: Theme
    label_px: int
    value_px: int
    jpeg: int


@dataclass(frozen=True, slots=True)
class Looks:
    """The choices that styles are drawn from.

    held_out_pairs: whether cards show held-out pairs of words only. label_sizes, value_sizes: heights in pixels.
    jitter: largest offset of a text or a mark to either side, in pixels.
    """

    fonts: tuple[str, ...] = TRAIN_FONTS
    themes: tuple[Theme, ...] = TRAIN_THEMES
    held_out_pairs: bool = False
    label_sizes: tuple[int, ...] = (11, 12, 13)
    value_sizes: tuple[int, ...] = (13, 14, 15, 16)
    jpeg_qualities: tuple[int, ...] = (60, 75, 85, 95)
    jitter: int = 3

    def draw(self, rng: np.random.Generator) -> Style:
        """A style drawn with rng."""
        return Style(
            self.fonts[rng.integers(len(self.fonts))],
            self.themes[rng.integers(len(self.themes))],
            int(rng.choice(self.label_sizes)),
            int(rng.choice(self.value_sizes)),
            int(rng.choice(self.jpeg_qualities)),
        )


LOOKS = {
    "train": Looks(),
    "fonts": Looks(fonts=HELD_OUT_FONTS),
    "themes": Looks(themes=HELD_OUT_THEMES),
    "pairs": Looks(held_out_pairs=True),
}
