"""The files of a library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kamera_agent.errors import InputError
from kamera_agent.window.media import kind_of, name_order


def find_media(paths: Iterable[Path]) -> list[Path]:
    """The files among paths, and the images and clips in folders at any depth, each once, by name within a folder.

    In a folder, the name tells what is an image or a clip; hidden files and folders are left out.
    Raises InputError for a path that does not exist, and where there is nothing.
    """
    found = dict[Path, None]()
    for path in paths:
        if not path.exists():
            raise InputError(f"There is nothing at {path}; pass images, clips, or folders of them.")
        found |= dict.fromkeys(file.resolve() for file in (_walk(path) if path.is_dir() else [path]))
    if not found:
        raise InputError("There are no images or clips in these folders.")
    return [*found]


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), key=lambda path: name_order(path.name)):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file() and kind_of(path.name) in ("image", "video"):
            yield path
