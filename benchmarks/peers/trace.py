"""The windows of the agent of benchmarks.agent, in files, so that processes of several environments can read them."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3
from PIL import Image

NAME = "trace.json"


class Step(NamedTuple):
    """A window of screenshots, oldest first, as paths of PNG files, and a question about it."""

    screens: tuple[str, ...]
    question: str
    event: str


def write_trace(folder: Path, num_steps: int, width: int) -> None:
    """Record the first steps of the agent into a folder, with screenshots of a width. Needs Chromium."""
    # A process of an engine's environment reads traces only.
    from benchmarks.agent import record

    steps = []
    for step in record(num_steps):
        paths = [folder / f"{blake3(screen).hexdigest(16)}.png" for screen in step.screens]
        for path, screen in zip(paths, step.screens, strict=True):
            picture = Image.open(BytesIO(screen)).convert("RGB")
            picture.resize((width, picture.height * width // picture.width)).save(path)
        steps.append({"screens": [str(path) for path in paths], "question": step.question, "event": step.event})
    (folder / NAME).write_text(json.dumps(steps))


def read_trace(folder: Path) -> list[Step]:
    """The steps in a folder."""
    steps: list[dict[str, Any]] = json.loads((folder / NAME).read_text())
    return [Step(tuple(step["screens"]), step["question"], step["event"]) for step in steps]
