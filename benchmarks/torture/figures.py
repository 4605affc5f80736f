"""The figures of a torture, by name. Those that are 0 may be missing."""

from __future__ import annotations

from collections import Counter

Figures = Counter[str]

MUST_BE_0 = (
    *("lost", "unsound", "wrong", "deaths", "unwritable", "unreported"),
    *("failed_answers", "unsaid", "repeated", "load_wrong", "hangs", "oversize", "told_apart"),
)
