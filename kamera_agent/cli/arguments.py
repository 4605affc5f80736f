"""Checks of a command's arguments. No torch is imported here, so a wrong argument is answered at once."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kamera_agent.config import locate
from kamera_agent.errors import InputError, MissingExtraError, ModelError, SettingError, StoreUnavailableError
from kamera_agent.options import is_url
from kamera_agent.pocket.weights import POCKET

# What comes first in a list of chunks.
Order = Literal["name", "size", "hits", "age", "used"]
# LmdbStore makes this file when a folder is first opened as a store.
DATABASE = "records-4.mdb"
AGE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd])", re.ASCII)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A path has lost one of the slashes.
URL = re.compile("[a-z0-9]{2,}:/")
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(?:([kmgt])(i)?)?b?", re.ASCII | re.IGNORECASE)


def check_places(places: list[str]) -> list[str]:
    """The folders and URLs of the tiers of a store. Raises StoreUnavailableError for a file."""
    return [place if is_url(place) else str(check_store(Path(place))) for place in places]


def check_store(path: Path) -> Path:
    """The folder of a store that may be made. Raises StoreUnavailableError for a file, SettingError for a URL."""
    if URL.match(str(path)):
        raise SettingError("This command works on the folder of a store; a shared store has the tools of its server.")
    folder = locate(path)
    if folder.exists() and not folder.is_dir():
        raise StoreUnavailableError(f"{folder} is a file; pass the folder of a store.")
    return folder


def existing_store(path: Path) -> Path:
    """The folder of a store. Raises StoreUnavailableError when there is none, and creates nothing."""
    folder = check_store(path)
    if not (folder / DATABASE).is_file():
        raise StoreUnavailableError(f"{folder} holds no store; pass a folder that a Kamera was opened with.")
    return folder


def parse_size(text: str) -> int:
    """Bytes of a size such as 20GB, 1.5 GiB or 4096. Raises SettingError."""
    match = SIZE.fullmatch(text)
    if match is None:
        raise SettingError(f"{text[:40]!r} is not a size; use a number and a unit, such as 20GB or 512MiB.")
    number, prefix, binary = match.groups()
    power = 1 + "kmgt".index(prefix.lower()) if prefix else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def parse_age(text: str) -> float:
    """Seconds of an age such as 30d, 12 h, 90m or 45s. Raises SettingError."""
    match = AGE.fullmatch(text)
    if match is None:
        raise SettingError(f"{text[:40]!r} is not an age; use a number and a unit, such as 30d, 12h, 90m or 45s.")
    number, unit = match.groups()
    return float(number) * SECONDS[unit]


def output_folder(path: Path) -> Path:
    """A folder for files, as an absolute path. Makes it. Raises InputError when it cannot be written to."""
    folder = path.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(f"Nothing can be written to the folder {folder}; pass another place.")
    return folder


def output_file(path: Path) -> Path:
    """A file that can be written, as an absolute path. Makes its folder. Raises InputError."""
    file = output_folder(path.parent) / path.name
    if file.is_dir():
        raise InputError(f"{file} is a folder; pass the name of a file.")
    return file


def input_file(path: Path) -> Path:
    """A file that exists. Raises InputError."""
    file = path.expanduser()
    if not file.is_file():
        raise InputError(f"There is no file at {file}.")
    return file


def check_extra(package: str, extra: str) -> None:
    """Raise MissingExtraError if a package is missing that only an extra of this package brings."""
    if find_spec(package) is None:
        raise MissingExtraError("This command", package, extra)


def check_model(model: str) -> None:
    """Raise ModelError for a path that does not exist. Whether the hub has a model is found out by loading it."""
    is_hub_id = model.count("/") <= 1 and not model.startswith((".", "/", "~"))
    if model != POCKET and not is_hub_id and not os.path.isdir(model):
        raise ModelError(f"Cannot load {model!r}: there is no such folder. Pass a hub id, a folder or {POCKET!r}.")
