"""`kamera ask`: a question about images and clips. Torch is imported after they have been read."""

from __future__ import annotations

import math
import mimetypes
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kamera_agent.errors import InputError, SettingError
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import decode_image, is_image
from kamera_agent.vision.sampling import sample_fps, take_frames
from kamera_agent.window.content import Content, FramesContent, ImageContent

if TYPE_CHECKING:
    from kamera_agent.window.window import Window

# Frames of a clip per chunk: Qwen models join two frames into one time step.
GROUP = 2


def ask(
    paths: Sequence[Path], question: str, *, model: str, keep_last: int | None, fps: float, store: Path, key: str | None
) -> None:
    """Print the answer as it comes, then its cost. Raises KameraError.

    fps: frames of a clip that are kept per second, and the rate of frames that come as a folder.
    """
    if not paths:
        raise SettingError("No image or clip was given; name one before the question.")
    if not (math.isfinite(fps) and fps > 0):
        raise SettingError(f"--fps is {fps}; use a number above 0.")
    contents = [content for path in paths for content in _read(path, fps)]
    # Imported, and loaded, last: a wrong path should not cost seconds or minutes.
    from kamera_agent.kamera import Kamera

    with Kamera.from_pretrained(model, store=store, encryption_key=key) as kamera:
        window = kamera.window()
        window.sync(contents)
        if keep_last is not None:
            window.slide(keep_last)
        _print_answer(window, question)


def _read(path: Path, fps: float) -> Iterator[Content]:
    if path.is_dir():
        yield from map(FramesContent, _groups(_read_folder(path, fps)))
    elif not path.is_file():
        raise InputError(f"There is no file at {path}; pass images, clips, or a folder of frames.")
    # By content where the name leaves it open: `.ts` is a clip to a camera, and another kind of file to most systems.
    elif _kind(path.name) == "image" or is_image(path):
        yield ImageContent(decode_image(path))
    else:
        yield from map(FramesContent, _groups(sample_fps(path, fps)))


def _read_folder(folder: Path, fps: float) -> Frames:
    """The images of a folder as frames, in the order of their names, 1 / fps seconds apart."""
    names = sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")), key=_name_order)
    images = [folder / name for name in names if _kind(name) == "image" or is_image(folder / name)]
    if not images:
        raise InputError(f"The folder {folder} holds no images; pass images, clips, or a folder of frames.")
    return take_frames(images, fps=fps)


def _kind(name: str) -> str:
    """The kind of a file by its name, such as image or video."""
    return (mimetypes.guess_type(name)[0] or "").partition("/")[0]


def _name_order(name: str) -> list[str | int]:
    """Sorts frame_9 before frame_10. Texts and numbers alternate, so they are never compared with each other."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]


def _groups(frames: Frames) -> Iterator[Frames]:
    for first in range(0, len(frames.timestamps), GROUP):
        part = slice(first, first + GROUP)
        yield Frames(frames.pixels[part], frames.timestamps[part])


def _print_answer(window: Window, question: str) -> None:
    stream = window.stream(question)
    for piece in stream:
        typer.echo(piece, nl=False)
    typer.echo()
    reply = stream.reply
    typer.echo(
        f"{reply.plan.num_computed} tokens computed, {reply.usage.tokens_recalled} recalled, first token after "
        f"{reply.timings.first_token_ms:.0f} ms",
        err=True,
    )
