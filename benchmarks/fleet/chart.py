"""The picture fleet.png: hits, tokens and time over the working set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GRID = "#30363d", "#e6e9ec"
OURS, SECOND, THIRD, FOURTH, GREY, DARK = "#1f6f8b", "#36a873", "#e3a34f", "#8f78c8", "#b8bec6", "#7f96ab"
STACKS = (FOURTH, OURS, SECOND, THIRD)
BASELINES = {"prefix": (GREY, "prefix cache"), "full": (DARK, "full prefill")}
SHARES = {
    "hit": (OURS, "recalled"),
    "other": (THIRD, "known, and computed again"),
    "new": (GREY, "never seen before"),
}

Point = Mapping[str, Any]
Figures = Mapping[str, Any]


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the picture of all points to a path."""
    figure = Figure(figsize=(13.0, 8.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    (shares, tokens), times = panels
    last = [*points[0]["stacks"]][-1]
    for name, (colour, label) in SHARES.items():
        _line(shares, points, [point["stacks"][last][name] for point in points], colour, label)
    _dress(shares, "Screens that are not in the window yet, as shares", "{x:.1f}")
    shares.legend(frameon=False)
    _compare(tokens, points, lambda figures: figures["tokens_per_step"])
    _dress(tokens, "Tokens computed per step", "{x:,.0f}")
    for axes, gpu in zip(times, points[0]["stacks"][last]["gpus"], strict=True):
        _compare(axes, points, partial(_first_token_ms, gpu))
        _dress(axes, f"Time to first token in ms, {gpu}", "{x:,.0f}")
        axes.set_xlabel("working set: screens that sessions share, in GB", color=INK)
    figure.legend(*tokens.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, dpi=110)


def _compare(axes: Axes, points: Sequence[Point], by_way: Callable[[Figures], Mapping[str, float]]) -> None:
    """Lines of ours with each stack of tiers, and of the baselines."""
    for colour, stack in zip(STACKS, points[0]["stacks"], strict=True):
        _line(axes, points, [by_way(point["stacks"][stack])["ours"] for point in points], colour, f"kamera, {stack}")
    for way, (colour, label) in BASELINES.items():
        _line(axes, points, [by_way(next(iter(point["stacks"].values())))[way] for point in points], colour, label)


def _first_token_ms(gpu: str, figures: Figures) -> Mapping[str, float]:
    by_way: Mapping[str, float] = figures["gpus"][gpu]["first_token_ms"]
    return by_way


def _line(axes: Axes, points: Sequence[Point], values: Sequence[float], colour: str, label: str) -> None:
    working_sets = [point["working_set_gb"] for point in points]
    axes.plot(working_sets, values, color=colour, label=label, marker="o", markersize=4, linewidth=2)


def _dress(axes: Axes, title: str, form: str) -> None:
    axes.set_title(title, loc="left", color=INK)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter(form)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK)
