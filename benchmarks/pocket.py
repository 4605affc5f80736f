"""Accuracy of the pocket model by task, on looks of the training and on held-out ones.

    python -m benchmarks.pocket --json [--windows 400] [--browser chromium] [--model FOLDER]

train    fonts, themes and label-value pairs of the training
fonts    two fonts that are not in the training
themes   three themes that are not in the training
pairs    label-value pairs that are not in the training
browser  the first look, drawn from HTML by a browser instead of by our renderer

Pictures go through the processor and the vision tower of the model, questions through its decoder, each as if it were
the only one. An answer is judged by its first token.
"""

from __future__ import annotations

import json
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.command import parser_of, versions
from kamera_agent.pocket.page import to_html
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.screen import CELL, Picture, Screen
from kamera_agent.pocket.style import LOOKS
from kamera_agent.pocket.tasks import TASKS
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.base import Family
from kamera_agent.vision.image import Pixels
from training.bank import Album
from training.decoding import Decoder, Lessons, draw_windows
from training.gallery import chunk_of
from training.recipe import EXAM

SEED = 20260623
BATCH = 16
SCREENS_PER_PAGE = 25
PAGE_WIDTH = 560
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1"),
)


def main() -> None:
    """Measure all looks and print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--windows", type=int, default=400, help="windows per look (default 400)")
    parser.add_argument("--browser", help="a Chromium that draws the screens")
    parser.add_argument(
        "--model", default=str(WEIGHTS), help="folder of a checkpoint that was trained on the tasks of the pocket model"
    )
    arguments = parser.parse_args()
    family = family_for(*load(arguments.model, device="cpu"))
    accuracy = {look: examine(family, look, arguments.windows, None) for look in LOOKS}
    if arguments.browser:
        accuracy["browser"] = examine(family, "train", arguments.windows, arguments.browser)
    conditions = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "windows": arguments.windows,
        "seed": SEED,
        "num_parameters": sum(parameter.numel() for parameter in family.model.parameters()),
        "machine": platform.machine(),
        "versions": versions(),
    }
    if arguments.json:
        print(json.dumps({"conditions": conditions, "accuracy": accuracy}))
    else:
        for look, row in accuracy.items():
            print(look, *(f"{task} {row[task]:.3f}" for task in TASKS if task in row))


@torch.no_grad()
def examine(family: Family, look: str, num_windows: int, browser: str | None) -> dict[str, Any]:
    """Accuracy and number of questions, by task. Few windows may have no question of a task."""
    rng = np.random.default_rng(SEED)
    windows = draw_windows(num_windows, EXAM, rng, LOOKS[look])
    pictures = [picture for window in windows for picture in window]
    frames = browse(pictures, browser) if browser else [draw(picture) for picture in pictures]
    table = torch.cat([family.encode(chunk_of(family, pixels)) for pixels in frames])
    lessons, decoder = Lessons(family, Album(windows, table)), Decoder(family)
    right, asked = decoder.grade(lessons.batch(windows[:BATCH], rng), table)
    for first in range(BATCH, num_windows, BATCH):
        hits, questions = decoder.grade(lessons.batch(windows[first : first + BATCH], rng), table)
        right, asked = right + hits, asked + questions
    return {**{task: right[task] / asked[task] for task in TASKS if asked[task]}, "questions": dict(asked)}


def browse(pictures: Sequence[Picture], browser: str) -> list[Pixels]:
    """Frames [F, H, W, 3] of pictures. A browser draws the screens, our renderer the shots."""
    screens = [picture for picture in pictures if isinstance(picture, Screen)]
    shown: dict[int, Pixels] = {}
    for first in range(0, len(screens), SCREENS_PER_PAGE):
        some = screens[first : first + SCREENS_PER_PAGE]
        page, top = _screenshot(to_html(some), sum(screen.rows for screen in some) * CELL, browser), 0
        for screen in some:
            height, width = screen.rows * CELL, screen.columns * CELL
            shown[id(screen)] = np.ascontiguousarray(page[None, top : top + height, :width])
            top += height
    return [shown[id(picture)] if isinstance(picture, Screen) else draw(picture) for picture in pictures]


def _screenshot(html: str, height: int, browser: str) -> Pixels:
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder, "page.html"), Path(folder, "page.png")
        page.write_text(html, "utf-8")
        size, profile = f"--window-size={PAGE_WIDTH},{height}", f"--user-data-dir={folder}/profile"
        command = [browser, *FLAGS, size, profile, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return np.asarray(Image.open(picture).convert("RGB"))


if __name__ == "__main__":
    main()
