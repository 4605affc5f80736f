"""Cells from answers, and the summary of the cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from benchmarks.fidelity.methods import RANKS
from benchmarks.fidelity.run import Answer, Result
from kamera_agent.pocket.tasks import BINDING, TASKS

# (event, method, task) -> figures
Cells = dict[str, dict[str, dict[str, dict[str, Any]]]]

SUMMARISED = ("full", "blind", "patch_12pct", "patch_25pct", "orbit")
RECALL = "recall_all"
SAME = 0.99
JUDGED = ("recall_one", "recall_all", "reorder_3", "reorder_4")


def make_cells(results: Iterable[Result]) -> Cells:
    """Figures per event, method and task."""
    grouped: defaultdict[tuple[str, str, str], list[tuple[Answer, Answer]]] = defaultdict(list)
    for result in results:
        for method, answer in result.answers.items():
            grouped[result.event, method, result.task].append((answer, result.answers["blind"]))
    cells: Cells = {}
    for (event, method, task), pairs in grouped.items():
        cells.setdefault(event, {}).setdefault(method, {})[task] = _figures(pairs)
    return cells


def _figures(pairs: list[tuple[Answer, Answer]]) -> dict[str, Any]:
    answers = [answer for answer, _ in pairs]
    flipped = [answer.agrees for answer, blind in pairs if not blind.agrees]
    return {
        "cases": len(answers),
        "accuracy": mean(answer.right for answer in answers),
        "agreement": mean(answer.agrees for answer in answers),
        "flips": len(flipped),
        "flips_repaired": mean(flipped) if flipped else None,
        "kl": mean(answer.kl for answer in answers),
        "bytes_share": mean(answer.bytes_share for answer in answers),
        "recomputed": mean(answer.recomputed for answer in answers),
    }


def by_layer(results: Iterable[Result], figure: Literal["norms", "energy_ranks"]) -> dict[str, list[float]]:
    """Means of a figure of the lost conditioning, by event and layer."""
    rows: defaultdict[str, list[list[float]]] = defaultdict(list)
    for result in results:
        rows[result.event].append(getattr(result, figure))
    return {event: [mean(layer) for layer in zip(*layers, strict=True)] for event, layers in rows.items()}


def ranks(row: Mapping[str, Mapping[str, Mapping[str, float]]], energies: Sequence[float]) -> dict[str, float | None]:
    """Two ranks of an event. energy: components that hold 90 % of the energy, as a mean over layers.

    functional: the smallest rank that agrees with the full prefill in a share of SAME of the cases, as a mean over the
    binding tasks; None if no rank does.
    """
    agreement = {
        rank: mean(cell["agreement"] for task, cell in row[f"rank_{rank}"].items() if task in BINDING) for rank in RANKS
    }
    return {
        "energy": mean(energies),
        "functional": next((rank for rank in RANKS if agreement[rank] >= SAME), None),
    }


def summarise(cells: Cells) -> dict[str, Any]:
    """The main figures: accuracy after recall, and the share of a full prefill that is kept."""
    recall = cells[RECALL]
    tasks = [task for task in TASKS if task in recall["full"]]
    summary: dict[str, Any] = {
        method: {task: recall[method][task]["accuracy"] for task in tasks} for method in SUMMARISED
    }
    full, blind = summary["full"], summary["blind"]
    # Nothing of a task can be kept that the full prefill never answers; with few cases, there are such tasks.
    kept = [blind[task] / full[task] for task in BINDING if full.get(task)]
    blind["binding_kept"] = mean(kept) if kept else None
    for method in ("patch_12pct", "patch_25pct"):
        summary[method]["worst_kept"] = min(
            (
                cells[event][method][task]["accuracy"] / cells[event]["full"][task]["accuracy"]
                for event in JUDGED
                if event in cells
                for task in tasks
                if cells[event]["full"][task]["accuracy"]
            ),
            default=None,
        )
    summary["orbit"]["minus_exact_points"] = min(
        100 * (row["orbit"][task]["accuracy"] - row["ideal_25pct"][task]["accuracy"])
        for event, row in cells.items()
        if event in JUDGED
        for task in tasks
    )
    return summary
