"""Files as contents of a window: images, clips, and folders of frames."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path

from kamera_agent.errors import InputError
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import decode_image, is_image
from kamera_agent.vision.sampling import groups_of, sample_fps, sample_groups, take_frames
from kamera_agent.window.content import Content, FramesContent, ImageContent


def read_media(path: Path, fps: float) -> Iterator[Content]:
    """An image; or a clip or a folder of images, its frames in groups. Raises InputError, ImageError and VideoError.

    fps: frames of a clip that are kept per second, at most sampling.MAX_FRAMES in all; the rate of a folder's frames.
    """
    if path.is_dir():
        yield from map(FramesContent, groups_of(_read_folder(path, fps)))
    elif not path.is_file():
        raise InputError(f"There is no file at {path}; pass images, clips, or a folder of frames.")
    elif is_picture(path):
        yield ImageContent(decode_image(path))
    else:
        yield from map(FramesContent, groups_of(sample_fps(path, fps)))


def stream_media(path: Path, fps: float) -> Iterator[Content]:
    """The contents of one file as read_media reads them, one at a time, to the end of a clip of any length."""
    if is_picture(path):
        yield ImageContent(decode_image(path))
    else:
        yield from map(FramesContent, sample_groups(path, fps))


def is_picture(path: Path) -> bool:
    """Whether a file is an image."""
    # By content where the name leaves it open: `.ts` is a clip to a camera, and another kind of file to most systems.
    return kind_of(path.name) == "image" or is_image(path)


def kind_of(name: str) -> str:
    """The kind of a file by its name, such as image or video; empty where the name leaves it open."""
    return (mimetypes.guess_type(name)[0] or "").partition("/")[0]


def name_order(name: str) -> list[str | int]:
    """Sorts frame_9 before frame_10. Texts and numbers alternate, so they are never compared with each other."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", name))]


def _read_folder(folder: Path, fps: float) -> Frames:
    """The images of a folder as frames, in the order of their names, 1 / fps seconds apart."""
    names = sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")), key=name_order)
    images = [folder / name for name in names if is_picture(folder / name)]
    if not images:
        raise InputError(f"The folder {folder} holds no images; pass images, clips, or a folder of frames.")
    return take_frames(images, fps=fps)
