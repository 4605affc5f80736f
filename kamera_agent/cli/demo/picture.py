"""demo.png: times and tokens per turn, for the three ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kamera_agent.cli.demo.result import TurnResult, Way

COLOURS: dict[Way, str] = {"full": "#b8bec6", "prefix": "#e3a34f", "kamera": "#1f6f8b"}
LABELS: dict[Way, str] = {
    "full": "full prefill",
    "prefix": "prefix cache, encoder outputs kept",
    "kamera": "kamera",
}
INK = "#30363d"
BAR_WIDTH = 0.27


def draw(results: Sequence[TurnResult], path: Path) -> None:
    """Draw the turns and write the picture to a file."""
    figure = Figure(figsize=(12.8, 8.0), layout="constrained")
    times, tokens = figure.subplots(2, 1, sharex=True)
    _bars(times, [r.first_token_ms for r in results], "{:,.0f}")
    times.set_title("Time to first token, milliseconds", loc="left", color=INK, fontsize=13)
    _bars(tokens, [r.num_computed for r in results], "{:,.0f}")
    tokens.set_title("Tokens computed", loc="left", color=INK, fontsize=13)
    for axes in (times, tokens):
        _mark_restart(axes, results)
    labels = [f"{r.number}\n{r.event.replace(' ', chr(10))}" for r in results]
    tokens.set_xticks(range(len(results)), labels, fontsize=9.5)
    figure.legend(*times.get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def _bars(axes: Axes, rows: Sequence[Mapping[Way, float]], form: str) -> None:
    for offset, (way, colour) in enumerate(COLOURS.items(), start=-1):
        positions = [turn + offset * BAR_WIDTH for turn in range(len(rows))]
        axes.bar(positions, [row[way] for row in rows], BAR_WIDTH, color=colour, label=LABELS[way])
    for turn, row in enumerate(rows):
        _label(axes, turn, row["kamera"], form)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.01, y=0.1)


def _label(axes: Axes, turn: int, value: float, form: str) -> None:
    """Write the value over kamera's bar, from its left edge into the gap to its right."""
    axes.annotate(
        form.format(value),
        (turn + BAR_WIDTH / 2, value),
        xytext=(1, 2),
        textcoords="offset points",
        color=COLOURS["kamera"],
        fontsize=8,
    )


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
