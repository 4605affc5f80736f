"""The console that the commands print to."""

from __future__ import annotations

from rich.console import Console

# A row of a table must stay on one line in a file or a pipe, which have no width of their own.
PLAIN_WIDTH = 150


def make_console() -> Console:
    """A console on stdout that prints text unchanged."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PLAIN_WIDTH)


def format_bytes(num_bytes: int) -> str:
    """A size in decimal units, such as 48.9 MB."""
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{num_bytes} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
