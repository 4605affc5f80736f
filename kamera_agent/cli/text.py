"""Text that may come from a stranger, on its way to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with a replacement for every character that is not shown: some of them give commands to a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
