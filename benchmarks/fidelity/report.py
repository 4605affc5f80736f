"""The table and the plot of a run."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.fidelity.score import Cells
from kamera_agent.pocket.tasks import TASKS

INK = "#30363d"
LABELS = {
    "full": "full prefill",
    "full_rank": "full rank",
    "patch_25pct": "patch, 25 % of the bytes",
    "patch_12pct": "patch, 12 %",
    "patch_6pct": "patch, 6 %",
    "even_25pct": "the same rank in every layer, 25 %",
    "even_12pct": "the same rank in every layer, 12 %",
    "even_6pct": "the same rank in every layer, 6 %",
    "ideal_25pct": "patch fitted in this very window, 25 %",
    "orbit": "orbit patch, 25 %",
    "recompute_15pct": "15 % of tokens recomputed",
    "recompute_5pct": "5 % of tokens recomputed",
    "first_4": "first 4 tokens recomputed",
    "first_1": "first token recomputed",
    "blind": "blind",
}
PLOTTED = ("blind", "first_4", "recompute_15pct", "patch_12pct", "patch_25pct", "full")
COLOURS = ("#b8bec6", "#d9b38c", "#e3a34f", "#7fb3c8", "#1f6f8b", "#30363d")


def as_markdown(cells: Cells) -> str:
    """Accuracy by task, one table per event, with the mean divergence from the full prefill."""
    return "\n\n".join(_table(event, rows) for event, rows in cells.items())


def _table(event: str, rows: dict[str, dict[str, dict[str, float]]]) -> str:
    tasks = (*TASKS, "now") if "now" in rows["full"] else TASKS
    head = f"| {event} | {' | '.join(tasks)} | KL | bytes | recomputed |"
    lines = [head, "|" + " --- |" * (len(tasks) + 4)]
    for method in [*LABELS, *(name for name in rows if name not in LABELS)]:
        row = rows.get(method, {})
        if not row:
            continue
        figures = [f"{row[task]['accuracy']:.3f}" if task in row else "-" for task in tasks]
        means = {key: mean(cell[key] for cell in row.values()) for key in ("kl", "bytes_share", "recomputed")}
        lines.append(
            f"| {LABELS.get(method, method)} | {' | '.join(figures)} | {means['kl']:.4f} | "
            f"{means['bytes_share']:.0%} | {means['recomputed']:.0%} |"
        )
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Accuracy by task after recall, KL by rank, and where the lost conditioning sits."""
    figure = Figure(figsize=(12.8, 9.0), layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    axes = top.subplots()
    recall = report["cells"]["recall_all"]
    for offset, (method, colour) in enumerate(zip(PLOTTED, COLOURS, strict=True)):
        places = [index + (offset - 2.5) * 0.14 for index in range(len(TASKS))]
        heights = [recall[method][task]["accuracy"] for task in TASKS]
        axes.bar(places, heights, 0.13, color=colour, label=LABELS[method])
    axes.set_xticks(range(len(TASKS)), TASKS)
    axes.set_title("Accuracy when every chunk is recalled", loc="left", color=INK)
    axes.legend(ncols=6, frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    left, right = bottom.subplots(1, 2)
    ranks = (1, 2, 4, 8, 16, 32)
    for event, rows in report["cells"].items():
        means = [mean(cell["kl"] for cell in rows[f"rank_{rank}"].values()) for rank in ranks]
        left.plot(ranks, [max(value, 1e-6) for value in means], marker="o", label=event)
    left.set(xscale="log", yscale="log", xlabel="rank", ylabel="KL to the full prefill, nats")
    left.set_xticks(ranks, [str(rank) for rank in ranks])
    left.set_title("Divergence by rank", loc="left", color=INK)
    left.legend(frameon=False, fontsize=8)
    for event, norms in report["norms"].items():
        right.plot(range(len(norms)), norms, marker="o", label=event)
    right.set(xlabel="layer", ylabel="norm relative to the KV")
    right.set_xticks(range(len(next(iter(report["norms"].values())))))
    right.set_title("Where the lost conditioning sits", loc="left", color=INK)
    for part in (axes, left, right):
        part.spines[["top", "right"]].set_visible(False)
        part.tick_params(colors=INK)
    figure.savefig(path, dpi=120)
