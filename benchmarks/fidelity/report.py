"""Tables and plot of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fidelity.methods import RANKS
from benchmarks.fidelity.score import ALL_TASKS, Cells, worst
from benchmarks.fidelity.split_report import rank_table, split_table
from kamera_agent.pocket.tasks import BINDING, TASKS

Report = Mapping[str, Any]

INK = "#30363d"
LABELS = {
    "full": "full prefill",
    "settled": "window, healed after the event",
    "default": "window, default settings",
    "no_heal": "window, never healed",
    "refresh": "moved, refreshed",
    "refresh_40pct": "moved, 40 % refreshed",
    "refresh_25pct": "moved, 25 % refreshed",
    "refresh_10pct": "moved, 10 % refreshed",
    "moved": "moved",
    "base_12pct": "patch over the base, 12 % of the bytes",
    "base_6pct": "patch over the base, 6 %",
    "full_rank": "full rank",
    "canonical_25pct": "patch over canonical KV, 25 %",
    "canonical_12pct": "patch over canonical KV, 12 %",
    "canonical_6pct": "patch over canonical KV, 6 %",
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
COLOURS = {
    "blind": "#b8bec6",
    "first_4": "#d9b38c",
    "recompute_15pct": "#e3a34f",
    "moved": "#e3a34f",
    "canonical_12pct": "#7fb3c8",
    "refresh": "#7fb3c8",
    "no_heal": "#4b93ad",
    "canonical_25pct": "#1f6f8b",
    "default": "#1f6f8b",
    "full": "#30363d",
    "settled": "#30363d",
}
RECALLED = ("blind", "first_4", "recompute_15pct", "canonical_12pct", "canonical_25pct", "full")
HELD = ("blind", "moved", "refresh", "no_heal", "default", "settled")
BASED = ("base_6pct", "base_12pct")
KEPT = ("blind", "recompute_15pct", "canonical_6pct", "canonical_12pct", "canonical_25pct", "orbit")


def as_markdown(cells: Cells) -> str:
    """One table per event: accuracy by task, and means over the tasks of KL, bytes and recomputed tokens.

    lost, won: questions that only the full prefill, and only the method answers correctly.
    """
    return "\n\n".join(_table(event, rows) for event, rows in cells.items())


def _table(event: str, rows: dict[str, dict[str, dict[str, float]]]) -> str:
    tasks = [task for task in ALL_TASKS if task in rows["full"]]
    head = f"| {event} | {' | '.join(tasks)} | lost | won | KL | bytes | recomputed |"
    lines = [head, "|" + " --- |" * (len(tasks) + 6)]
    for method in [*LABELS, *(name for name in rows if name not in LABELS)]:
        row = rows.get(method, {})
        if not row:
            continue
        figures = [f"{row[task]['accuracy']:.3f}" for task in tasks]
        means = {key: mean(cell[key] for cell in row.values()) for key in ("kl", "bytes_share", "recomputed")}
        lost, won = (sum(int(cell[key]) for cell in row.values()) for key in ("lost", "won"))
        lines.append(
            f"| {LABELS.get(method, method)} | {' | '.join(figures)} | {lost} | {won} | {means['kl']:.4f} | "
            f"{means['bytes_share']:.0%} | {means['recomputed']:.0%} |"
        )
    return "\n".join(lines)


def backbones_as_markdown(reports: Mapping[str, Report]) -> str:
    """Shares of a full prefill that are kept, one table per event of accuracy by task, and those of split.py.

    reports: by "backbone-seed". Figures are means over the seeds, but for the worst task, which is that of all seeds.
    """
    by_backbone: defaultdict[str, list[Report]] = defaultdict(list)
    for name, report in reports.items():
        by_backbone[name.rsplit("-", 1)[0]].append(report)
    events = next(iter(reports.values()))["cells"]
    hybrids = {name: run["split"] for name, run in reports.items() if run.get("split")}
    splits = (part for name, cells in hybrids.items() for part in (split_table(name, cells), rank_table(name, cells)))
    return "\n\n".join(
        [_kept(by_backbone), _worst(by_backbone), *(_accuracies(event, by_backbone) for event in events), *splits]
    )


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


def _worst(by_backbone: Mapping[str, Sequence[Report]]) -> str:
    methods = (*BASED, *(method for method in KEPT if method.startswith("canonical")))
    lines = [
        f"| share of full, worst task of all events | {' | '.join(LABELS[method] for method in methods)} |",
        "|" + " --- |" * (len(methods) + 1),
    ]
    for name, runs in by_backbone.items():
        shares = [[worst(run["cells"], method, ALL_TASKS)[0] for run in runs] for method in methods]
        lines.append(f"| {name} | {' | '.join(f'{min(of):.2f}' for of in shares)} |")
    return "\n".join(lines)


def _accuracies(event: str, by_backbone: Mapping[str, Sequence[Report]]) -> str:
    tasks = [task for task in TASKS if task in next(iter(by_backbone.values()))[0]["cells"][event]["full"]]
    lines = [f"| {event} | method | {' | '.join(tasks)} | KL |", "|" + " --- |" * (len(tasks) + 3)]
    for name, runs in by_backbone.items():
        cells = [run["cells"][event] for run in runs]
        for method in ("full", *(method for method in reversed((*KEPT, *BASED)) if method in cells[0])):
            rows = [cell[method] for cell in cells]
            figures = [f"{mean(row[task]['accuracy'] for row in rows):.3f}" for task in tasks]
            kl = mean(cell["kl"] for row in rows for cell in row.values())
            lines.append(f"| {name} | {LABELS[method]} | {' | '.join(figures)} | {kl:.4f} |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot accuracy by task after recall, the worst task by event, KL by rank, and the lost conditioning by layer."""
    cells = report["cells"]
    figure = Figure(figsize=(12.8, 13.0), layout="constrained")
    recalled, kept, bottom = figure.subfigures(3, 1)
    first, second, (left, right) = recalled.subplots(), kept.subplots(), bottom.subplots(1, 2)
    tasks = [task for task in ALL_TASKS if task in cells["recall_all"]["full"]]
    heights = {method: [cells["recall_all"][method][task]["accuracy"] for task in tasks] for method in RECALLED}
    _bars(first, tasks, heights, "Accuracy when every chunk is recalled")
    methods = [method for method in HELD if all(method in row for row in cells.values())]
    worst_kept = {method: [worst({event: cells[event]}, method, ALL_TASKS)[0] for event in cells] for method in methods}
    _bars(second, list(cells), worst_kept, "Share of the full prefill's answers that the worst task keeps")
    for event, rows in cells.items():
        means = [mean(cell["kl"] for cell in rows[f"rank_{rank}"].values()) for rank in RANKS]
        left.plot(RANKS, [max(value, 1e-6) for value in means], marker="o", label=event)
    left.set(xscale="log", yscale="log", xlabel="rank", ylabel="KL to the full prefill, nats")
    left.set_xticks(RANKS, [str(rank) for rank in RANKS])
    left.set_title("Divergence by rank", loc="left", color=INK)
    left.legend(frameon=False, fontsize=8)
    for event, norms in report["norms"].items():
        right.plot(range(len(norms)), norms, marker="o", label=event)
    right.set(xlabel="layer", ylabel="norm relative to the KV")
    right.set_xticks(range(len(next(iter(report["norms"].values())))))
    right.set_title("Lost conditioning by layer", loc="left", color=INK)
    for part in (first, second, left, right):
        part.spines[["top", "right"]].set_visible(False)
        part.tick_params(colors=INK)
    figure.savefig(path, dpi=120)


def _bars(axes: Axes, groups: Sequence[str], heights: Mapping[str, Sequence[float]], title: str) -> None:
    for offset, (method, values) in enumerate(heights.items()):
        places = [index + (offset - (len(heights) - 1) / 2) * 0.14 for index in range(len(groups))]
        axes.bar(places, values, 0.13, color=COLOURS[method], label=LABELS[method])
    axes.set_xticks(range(len(groups)), groups, fontsize=9)
    axes.set_title(title, loc="left", color=INK)
    axes.legend(ncols=len(heights), frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.08))
