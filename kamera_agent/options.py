"""Options as callers give them: names that may be misspelt, numbers of any library, lists and paths."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from numbers import Real
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import InputError, SettingError

# What 64 bits hold, with or without a sign.
LOWEST, HIGHEST = -(2**63), 2**64 - 1


def check_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise SettingError for a name that is not among the known ones. owner: what takes the options."""
    for name in sorted(set(given) - set(known)):
        advice = f"use {', '.join(sorted(known))}." if known else "leave it out."
        if near := get_close_matches(name, known, 1):
            advice = f"did you mean {near[0]!r}?"
        raise SettingError(f"{owner} has no option {name!r}; {advice}")


def whole(name: str, value: Any) -> int:
    """A whole number of Python or numpy, of 64 bits, as an int; 5.0 is one. Raises SettingError."""
    if not _is_number(value) or not LOWEST <= value <= HIGHEST or value != int(value):
        raise SettingError(f"{name} is {short(value)}; use a whole number of 64 bits.")
    return int(value)


def real(name: str, value: Any) -> float:
    """A number of Python or numpy as a float. Raises SettingError."""
    with suppress(OverflowError):
        if _is_number(value):
            return float(value)
    raise SettingError(f"{name} is {short(value)}; use a number.")


def several(name: str, value: Any) -> list[Any]:
    """The members of an iterable; a text or a mapping is none. Raises InputError."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InputError(f"{name} is {short(value)}; use a list.")
    return [*value]


def path_of(name: str, value: Any) -> str:
    """A path as a str. Raises SettingError."""
    with suppress(UnicodeEncodeError):
        if isinstance(value, (str, os.PathLike)) and b"\0" not in os.fsencode(value):
            return os.fsdecode(value)
    raise SettingError(f"{name} is {short(value)}; use a path, as a str or a Path.")


def is_url(text: str) -> bool:
    """Whether a text names a shared store, and not a folder: a URL, or "env:NAME" for one in the environment."""
    return "://" in text or text.startswith("env:")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
