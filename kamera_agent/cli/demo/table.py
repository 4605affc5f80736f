"""The table of the demo, one row per turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table

from kamera_agent.cli.demo.result import ORIGINS, TurnResult


def turn_table(results: Sequence[TurnResult]) -> Table:
    """The turns measured so far, with a line where the process changed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("turn", justify="right")
    table.add_column("event", no_wrap=True)
    table.add_column("chunks", no_wrap=True)
    for name in ("computed", "of tokens", "kamera", "prefix", "full", "vs prefix", "vs full", "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, result in enumerate(results):
        restarts = index + 1 < len(results) and results[index + 1].process != result.process
        table.add_row(*_cells(result), end_section=restarts)
    return table


def _cells(result: TurnResult) -> list[str]:
    times = (result.first_token_ms[way] for way in ("kamera", "prefix", "full"))
    return [
        str(result.number),
        result.event,
        count_origins(result),
        str(result.num_computed["kamera"]),
        str(result.num_computed["full"]),
        *(f"{time / 1e3:.2f} s" for time in times),
        f"{result.speedup('prefix'):.1f}x",
        f"{result.speedup('full'):.1f}x",
        f"{max(result.kl, 0):.1e}",
    ]


def count_origins(result: TurnResult) -> str:
    """Chunks by origin: 3 moved 1 computed."""
    counts = Counter(chunk.origin for chunk in result.chunks)
    return " ".join(f"{counts[origin]} {origin}" for origin in ORIGINS if counts[origin])
