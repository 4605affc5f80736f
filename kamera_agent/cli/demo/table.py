"""The table of the demo, one row per turn."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from kamera_agent.cli.demo.result import WAYS, TurnResult


def turn_table(results: Sequence[TurnResult]) -> Table:
    """The turns, with a line where the process changes. Questions are cut to the width of the terminal."""
    can_be_right = bool(results[0].truth)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("turn", justify="right", no_wrap=True)
    table.add_column("event", no_wrap=True)
    for name in ("new", *WAYS, "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    if can_be_right:
        table.add_column("right", no_wrap=True)
        table.add_column("question")
    for index, result in enumerate(results):
        restarts = index + 1 < len(results) and results[index + 1].process != result.process
        answers = (_right(result), _question(result)) if can_be_right else ()
        table.add_row(*_figures(result), *answers, end_section=restarts)
    return table


def _figures(result: TurnResult) -> list[str]:
    times = (f"{result.first_token_ms[way]:,.0f}" if way in result.first_token_ms else "" for way in WAYS)
    kl = "" if result.kl is None else f"{result.kl:.0e}"
    return [str(result.number), result.event, f"{result.num_computed['kamera']:,}", *times, kl]


def _right(result: TurnResult) -> Text:
    """The initials of the ways, with a dash for each that is wrong."""
    ways = (*WAYS, "blind")
    return Text("".join("-" if way in result.wrong else way[0] for way in ways))


def _question(result: TurnResult) -> Text:
    return Text(f"{result.question} {result.truth}", no_wrap=True, overflow="ellipsis")
