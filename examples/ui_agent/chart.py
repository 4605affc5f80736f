"""The picture ui_agent.png: tokens, times and divergence per step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.ui_agent.comparison import Step

PLAIN, CACHED, LOOK, INK = "#b8bec6", "#1f6f8b", "#e3a34f", "#30363d"
WIDTH = 0.4
# A logarithmic axis has no 0: identical distributions are drawn here.
FLOOR = 1e-9


def draw(steps: Sequence[Step], path: Path) -> None:
    """Write the picture of all steps to a path."""
    figure = Figure(figsize=(13.0, 9.0), layout="constrained")
    tokens, times, divergence = figure.subplots(3, 1, sharex=True)
    _bars(tokens, steps, [s.plain.computed for s in steps], [s.cached.computed for s in steps])
    tokens.set_title("Tokens computed before the first token of the answer", loc="left", color=INK)
    _bars(times, steps, [s.plain.first_token_ms for s in steps], [s.cached.first_token_ms for s in steps])
    times.set_title("Time to first token, milliseconds", loc="left", color=INK)
    _points(divergence, steps)
    divergence.set_title("KL(plain || cached) of the next token, nats", loc="left", color=INK)
    divergence.set_xticks([s.number for s in steps], [str(s.number) for s in steps], fontsize=8)
    divergence.set_xlabel("step", color=INK)
    handles = dict(zip(*reversed(tokens.get_legend_handles_labels()), strict=True))
    handles |= dict(zip(*reversed(divergence.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)


def _bars(axes: Axes, steps: Sequence[Step], plain: Sequence[float], cached: Sequence[float]) -> None:
    numbers = [step.number for step in steps]
    axes.bar([n - WIDTH / 2 for n in numbers], plain, WIDTH, color=PLAIN, label="plain: full prefill")
    axes.bar([n + WIDTH / 2 for n in numbers], cached, WIDTH, color=CACHED, label="cached: ChatKamera")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _dress(axes, steps)


def _points(axes: Axes, steps: Sequence[Step]) -> None:
    for same, colour, label in ((True, CACHED, "same answer"), (False, "#c23b3b", "another answer")):
        for known, filled, suffix in ((True, colour, ""), (False, "none", ", unreadable")):
            some = [s for s in steps if s.same == same and bool(s.move.answer) == known]
            axes.scatter(
                [s.number for s in some],
                [max(s.kl, FLOOR) for s in some],
                s=34,
                facecolors=filled,
                edgecolors=colour,
                label=label + suffix,
            )
    axes.set_yscale("log")
    _dress(axes, steps)


def _dress(axes: Axes, steps: Sequence[Step]) -> None:
    """Style the axes, and draw a band behind each step that looked back."""
    looks = [step.number for step in steps if step.move.tool == "look_back"]
    for number in looks:
        label = "look back" if number == looks[0] else None
        axes.axvspan(number - 0.5, number + 0.5, color=LOOK, alpha=0.25, linewidth=0, zorder=0, label=label)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    axes.margins(x=0.01)
