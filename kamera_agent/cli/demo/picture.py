"""demo.png: times and tokens per turn, for the three ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from kamera_agent.cli.demo.result import TurnResult, Way

COLOURS: dict[Way, str] = {"full": "#b8bec6", "prefix": "#e3a34f", "kamera": "#1f6f8b"}
LABELS: dict[Way, str] = {
    "full": "full prefill",
    "prefix": "prefix cache, encoder outputs kept",
    "kamera": "kamera",
}
INK = "#30363d"


def draw(results: Sequence[TurnResult], path: Path) -> None:
    """Draw the turns and write the picture to a file."""
    figure = Figure(figsize=(12.8, 8.0), layout="constrained")
    times, tokens = figure.subplots(2, 1, sharex=True)
    _dots(times, [r.first_token_ms for r in results])
    times.set_title("Time to the first token, milliseconds; lines: medians", loc="left", color=INK, fontsize=13)
    _dots(tokens, [r.num_computed for r in results])
    tokens.set_title("Tokens computed; lines: medians", loc="left", color=INK, fontsize=13)
    for axes in (times, tokens):
        _mark_restart(axes, results)
    labels = [f"{r.number}  {r.event}" for r in results]
    tokens.set_xticks(range(len(results)), labels, fontsize=9, rotation=90)
    figure.legend(*times.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def _dots(axes: Axes, rows: Sequence[Mapping[Way, float]]) -> None:
    """A dot per turn and way on a logarithmic scale, and a line at the median of each way."""
    axes.set_yscale("log")
    for way, colour in COLOURS.items():
        shown = {turn: row[way] for turn, row in enumerate(rows) if way in row}
        axes.plot(list(shown), list(shown.values()), "o", markersize=6, color=colour, label=LABELS[way])
        middle = median(shown.values())
        axes.axhline(middle, color=colour, linewidth=1.2)
        axes.annotate(
            f"{middle:,.0f}",
            (1, middle),
            xycoords=("axes fraction", "data"),
            # The medians of two ways can be close to each other: the slower one is written above its line.
            xytext=(4, 2 if way == "full" else -8),
            textcoords="offset points",
            color=colour,
            fontsize=10,
        )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    # Labels between the powers of ten, where the axis is short.
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.margins(x=0.01, y=0.1)


def _mark_restart(axes: Axes, results: Sequence[TurnResult]) -> None:
    for index in range(1, len(results)):
        if results[index].process != results[index - 1].process:
            axes.axvline(index - 0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.annotate(
                "restart",
                (index - 0.5, 1),
                xycoords=("data", "axes fraction"),
                xytext=(6, -10),
                textcoords="offset points",
                color=INK,
                backgroundcolor="white",
            )
