"""Tables and plot of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from benchmarks.fidelity.score import Cells
from kamera_agent.pocket.tasks import BINDING, TASKS

Report = Mapping[str, Any]

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
    "ideal_25pct": "patch fitted in this window, 25 %",
    "orbit": "orbit patch, 25 %",
    "recompute_15pct": "15 % of tokens recomputed",
    "recompute_5pct": "5 % of tokens recomputed",
    "first_4": "first 4 tokens recomputed",
    "first_1": "first token recomputed",
    "blind": "blind",
}
PLOTTED = ("blind", "first_4", "recompute_15pct", "patch_12pct", "patch_25pct", "full")
KEPT = ("blind", "recompute_15pct", "patch_6pct", "patch_12pct", "patch_25pct", "orbit")
COLOURS = ("#b8bec6", "#d9b38c", "#e3a34f", "#7fb3c8", "#1f6f8b", "#30363d")


def as_markdown(cells: Cells) -> str:
    """One table per event: accuracy by task, and means over the tasks of KL, bytes and recomputed tokens."""
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


def backbones_as_markdown(reports: Mapping[str, Report]) -> str:
    """Share of a full prefill that is kept when every chunk is recalled, and one table per event of accuracy by task.

    reports: by "backbone-seed". Figures are means over the seeds.
    """
    by_backbone: defaultdict[str, list[Report]] = defaultdict(list)
    for name, report in reports.items():
        by_backbone[name.rsplit("-", 1)[0]].append(report)
    events = next(iter(reports.values()))["cells"]
    return "\n\n".join([_kept(by_backbone), *(_accuracies(event, by_backbone) for event in events)])


def _kept(by_backbone: Mapping[str, Sequence[Report]]) -> str:
    head = f"| share of full, binding tasks | attention | parameters | {' | '.join(LABELS[name] for name in KEPT)} |"
    lines = [head, "|" + " --- |" * (len(KEPT) + 3)]
    for name, runs in by_backbone.items():
        rows = [run["cells"]["recall_all"] for run in runs]
        shares = [
            mean(
                cell["accuracy"] / row["full"][task]["accuracy"]
                for row in rows
                for task, cell in row[method].items()
                if task in BINDING and row["full"][task]["accuracy"]
            )
            for method in KEPT
        ]
        conditions = runs[0]["conditions"]
        figures = " | ".join(f"{share:.2f}" for share in shares)
        lines.append(f"| {name} | {conditions['attention']} | {conditions['num_parameters']:,} | {figures} |")
    return "\n".join(lines)


def _accuracies(event: str, by_backbone: Mapping[str, Sequence[Report]]) -> str:
    tasks = [task for task in TASKS if task in next(iter(by_backbone.values()))[0]["cells"][event]["full"]]
    lines = [f"| {event} | method | {' | '.join(tasks)} | KL |", "|" + " --- |" * (len(tasks) + 3)]
    for name, runs in by_backbone.items():
        for method in ("full", *reversed(KEPT)):
            rows = [run["cells"][event][method] for run in runs]
            figures = [f"{mean(row[task]['accuracy'] for row in rows):.3f}" for task in tasks]
            kl = mean(cell["kl"] for row in rows for cell in row.values())
            lines.append(f"| {name} | {LABELS[method]} | {' | '.join(figures)} | {kl:.4f} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot accuracy by task after recall, KL by rank, and the lost conditioning by layer."""
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
    right.set_title("Lost conditioning by layer", loc="left", color=INK)
    for part in (axes, left, right):
        part.spines[["top", "right"]].set_visible(False)
        part.tick_params(colors=INK)
    figure.savefig(path, dpi=120)
