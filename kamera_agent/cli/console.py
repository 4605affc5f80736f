"""Where the commands print to."""

from __future__ import annotations

from rich.console import Console

# In a file or a pipe a row stays on one line.
PLAIN_WIDTH = 150


def make_console() -> Console:
    """A console on stdout that prints text as it is."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=PLAIN_WIDTH)


def format_bytes(num_bytes: int) -> str:
    """A size as people read it: 48.9 MB."""
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{num_bytes} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
