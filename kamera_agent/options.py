"""Options as callers give them: names that may be misspelt, and numbers of any library."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Real
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import SettingError


def check_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise SettingError for a name that is not among the known ones. owner: what takes the options."""
    for name in sorted(set(given) - set(known)):
        advice = f"use {', '.join(sorted(known))}." if known else "leave it out."
        if near := get_close_matches(name, known, 1):
            advice = f"did you mean {near[0]!r}?"
        raise SettingError(f"{owner} has no option {name!r}; {advice}")


def whole(name: str, value: Any) -> int:
    """A whole number of Python or numpy as an int; 5.0 is one. Raises SettingError."""
    if not _is_number(value) or not math.isfinite(value) or value != int(value):
        raise SettingError(f"{name} is {short(value)}; use a whole number.")
    return int(value)


def real(name: str, value: Any) -> float:
    """A number of Python or numpy as a float. Raises SettingError."""
    if not _is_number(value):
        raise SettingError(f"{name} is {short(value)}; use a number.")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
