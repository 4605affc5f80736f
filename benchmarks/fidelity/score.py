"""Cells from answers, and the summary of the cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any, Literal

from benchmarks.fidelity.methods import RANKS
from benchmarks.fidelity.run import Answer, Result
from kamera_agent.pocket.tasks import BINDING, TASKS

ALL_TASKS = (*TASKS, "now")

# (event, method, task) -> figures
Cells = dict[str, dict[str, dict[str, dict[str, Any]]]]

# Keys of the summary, by method.
SUMMARISED = {
    "full": "full",
    "blind": "blind",
    "canonical_12pct": "patch_12pct",
    "canonical_25pct": "patch_25pct",
    "orbit": "orbit",
}
# Methods that are judged by their worst cell.
PROMISED = ("base_6pct", "base_12pct", "moved", "refresh", "no_heal", "default", "settled")
RECALL = "recall_all"
SAME = 0.99
JUDGED = ("recall_one", "recall_all", "reorder_3", "reorder_4")


def make_cells(results: Iterable[Result]) -> Cells:
    """Figures per event, method and task."""
    grouped: defaultdict[tuple[str, str, str], list[tuple[Answer, Answer, Answer]]] = defaultdict(list)
    for result in results:
        full, blind = result.answers["full"], result.answers["blind"]
        for method, answer in result.answers.items():
            grouped[result.event, method, result.task].append((answer, full, blind))
    cells: Cells = {}
    for (event, method, task), pairs in grouped.items():
        cells.setdefault(event, {}).setdefault(method, {})[task] = _figures(pairs)
    return cells


def _figures(triples: list[tuple[Answer, Answer, Answer]]) -> dict[str, Any]:
    """lost, won: answers that only the full prefill, and only the method has right. kept: of full's right answers."""
    answers = [answer for answer, _, _ in triples]
    flipped = [answer.agrees for answer, _, blind in triples if not blind.agrees]
    right, right_by_full = (
        sum(answer.right for answer in side) for side in (answers, [full for _, full, _ in triples])
    )
    return {
        "cases": len(answers),
        "accuracy": mean(answer.right for answer in answers),
        "kept": right / right_by_full if right_by_full else None,
        "lost": sum(full.right and not answer.right for answer, full, _ in triples),
        "won": sum(answer.right and not full.right for answer, full, _ in triples),
        "agreement": mean(answer.agrees for answer in answers),
        "flips": len(flipped),
        "flips_repaired": mean(flipped) if flipped else None,
        "kl": mean(answer.kl for answer in answers),
        "bytes_share": mean(answer.bytes_share for answer in answers),
        "recomputed": mean(answer.recomputed for answer in answers),
        "stale": mean(answer.stale for answer in answers),
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
        key: {task: recall[method][task]["accuracy"] for task in tasks} for method, key in SUMMARISED.items()
    }
    # Nothing of a task can be kept that the full prefill never answers; with few cases, there are such tasks.
    kept = [share for task in BINDING if task in tasks and (share := recall["blind"][task]["kept"]) is not None]
    summary["blind"]["binding_kept"] = mean(kept) if kept else None
    judged = {event: row for event, row in cells.items() if event in JUDGED}
    for method in ("canonical_12pct", "canonical_25pct"):
        summary[SUMMARISED[method]]["worst_kept"] = worst(judged, method, tasks)[0]
    summary["orbit"]["minus_exact_points"] = min(
        100 * (row["orbit"][task]["accuracy"] - row["ideal_25pct"][task]["accuracy"])
        for row in judged.values()
        for task in tasks
    )
    for method in PROMISED:
        if any(method in row for row in cells.values()):
            share, cell = worst(cells, method, ALL_TASKS)
            summary[method] = {"worst_kept": share, "worst_cell": cell, "recomputed_share": _recomputed(cells, method)}
    return summary


def worst(cells: Cells, method: str, tasks: Sequence[str]) -> tuple[float | None, str | None]:
    """The smallest share of the full prefill's right answers that a method keeps, and its "event, task"."""
    shares = [
        (cell["kept"], f"{event}, {task}")
        for event, row in cells.items()
        for task, cell in row.get(method, {}).items()
        if task in tasks and cell["kept"] is not None
    ]
    return min(shares, default=(None, None))


def _recomputed(cells: Cells, method: str) -> float | None:
    """Tokens that are computed again, times layers, over those of all stale chunks. None if no chunk is stale."""
    figures = [cell for row in cells.values() for cell in row.get(method, {}).values()]
    recomputed, stale = (sum(cell["cases"] * cell[key] for cell in figures) for key in ("recomputed", "stale"))
    return recomputed / stale if stale else None
