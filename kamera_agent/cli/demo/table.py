"""The tables of the demo, one row per turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from kamera_agent.cli.demo.result import ORIGINS, WAYS, TurnResult


def turn_table(results: Sequence[TurnResult]) -> Table:
    """The turns measured so far, with a line where the process changes."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("turn", justify="right")
    table.add_column("event", no_wrap=True)
    table.add_column("chunks", no_wrap=True)
    for name in ("computed", "kamera", "prefix", "full", "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, result in enumerate(results):
        restarts = index + 1 < len(results) and results[index + 1].process != result.process
        table.add_row(*_cells(result), end_section=restarts)
    return table


def _cells(result: TurnResult) -> list[str]:
    times = (result.first_token_ms[way] for way in WAYS)
    return [
        str(result.number),
        result.event,
        count_origins(result),
        f"{result.num_computed['kamera']} of {result.num_computed['full']}",
        *(f"{time:.0f} ms" for time in times),
        f"{result.kl:.0e}",
    ]


def answer_table(results: Sequence[TurnResult]) -> Table:
    """The questions and answers. Wrong answers are marked."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("turn", justify="right")
    table.add_column("question")
    for name in (*WAYS, "blind"):
        table.add_column(name, no_wrap=True)
    for result in results:
        answers = (result.answers[name] for name in (*WAYS, "blind"))
        table.add_row(str(result.number), result.question, *(_mark(answer, result.truth) for answer in answers))
    return table


def _mark(answer: str, truth: str) -> Text:
    return Text(answer) if answer == truth else Text(f"{answer} (no: {truth})", style="red")


def count_origins(result: TurnResult) -> str:
    """Number of chunks by origin, such as "3 moved 1 computed"."""
    counts = Counter(chunk.origin for chunk in result.chunks)
    return " ".join(f"{counts[origin]} {origin}" for origin in ORIGINS if counts[origin])
