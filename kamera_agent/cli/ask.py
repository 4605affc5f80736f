"""`kamera ask`: a question about images and clips."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from kamera_agent import FramesContent, ImageContent, Kamera, SettingError, Window
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import decode_image
from kamera_agent.vision.sampling import sample_fps
from kamera_agent.window.content import Content

# Frames of a clip per chunk: Qwen models join two frames into one time step.
GROUP = 2


def ask(paths: Sequence[Path], question: str, model: str, keep_last: int | None, store: Path) -> None:
    """Print the answer as it comes, then its cost. Raises KameraError."""
    if not paths:
        raise SettingError("No image or clip was given; name one before the question.")
    # Read before the model is loaded: a wrong path should not cost minutes.
    contents = [content for path in paths for content in _read(path)]
    with Kamera.from_pretrained(model, store=store) as kamera:
        window = kamera.window()
        window.sync(contents)
        if keep_last is not None:
            window.slide(keep_last)
        _print_answer(window, question)


def _read(path: Path) -> Iterator[Content]:
    kind, _ = mimetypes.guess_type(path)
    if kind and kind.startswith("video/"):
        for group in _groups(sample_fps(path)):
            yield FramesContent(group)
    else:
        yield ImageContent(decode_image(path))


def _groups(frames: Frames) -> Iterator[Frames]:
    for first in range(0, len(frames.timestamps), GROUP):
        part = slice(first, first + GROUP)
        yield Frames(frames.pixels[part], frames.timestamps[part])


def _print_answer(window: Window, question: str) -> None:
    stream = window.stream(question)
    for piece in stream:
        typer.echo(piece, nl=False)
    typer.echo()
    usage = stream.reply.usage
    typer.echo(
        f"{usage.tokens_computed} tokens computed, {usage.tokens_recalled} recalled, first token after "
        f"{stream.reply.timings.first_token_ms:.0f} ms",
        err=True,
    )
