"""From answers to cells, and from cells to the summary that others read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import Any

from benchmarks.fidelity.run import Answer, Result
from kamera_agent.pocket.tasks import BINDING, TASKS

# (event, method, task) -> figures
Cells = dict[str, dict[str, dict[str, dict[str, float]]]]

SUMMARISED = ("full", "blind", "patch_12pct", "patch_25pct", "orbit")
RECALL = "recall_all"
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


def _figures(pairs: list[tuple[Answer, Answer]]) -> dict[str, float]:
    answers = [answer for answer, _ in pairs]
    flipped = [answer.agrees for answer, blind in pairs if not blind.agrees]
    return {
        "cases": len(answers),
        "accuracy": mean(answer.right for answer in answers),
        "agreement": mean(answer.agrees for answer in answers),
        "flips": len(flipped),
        "flips_repaired": mean(flipped) if flipped else 1.0,
        "kl": mean(answer.kl for answer in answers),
        "bytes_share": mean(answer.bytes_share for answer in answers),
        "recomputed": mean(answer.recomputed for answer in answers),
    }


def mean_norms(results: Iterable[Result]) -> dict[str, list[float]]:
    """Per event, the mean norm of the lost conditioning relative to the KV, by layer."""
    norms: defaultdict[str, list[list[float]]] = defaultdict(list)
    for result in results:
        norms[result.event].append(result.norms)
    return {event: [mean(layer) for layer in zip(*rows, strict=True)] for event, rows in norms.items()}


def summarise(cells: Cells) -> dict[str, Any]:
    """The figures that others read: accuracies after recall, and how much is kept of a full prefill."""
    recall = cells[RECALL]
    summary: dict[str, Any] = {
        method: {task: recall[method][task]["accuracy"] for task in TASKS} for method in SUMMARISED
    }
    full, blind = summary["full"], summary["blind"]
    blind["binding_kept"] = mean(blind[task] / full[task] for task in BINDING)
    for method in ("patch_12pct", "patch_25pct"):
        summary[method]["worst_kept"] = min(
            _kept(cells[event], method, task) for event in JUDGED if event in cells for task in TASKS
        )
    summary["orbit"]["minus_exact_points"] = min(
        100 * (row["orbit"][task]["accuracy"] - row[exact][task]["accuracy"])
        for event, row in cells.items()
        if event in JUDGED
        for exact in ["exact_25pct" if "exact_25pct" in row else "patch_25pct"]
        for task in TASKS
    )
    return summary


def _kept(row: Mapping[str, Mapping[str, Mapping[str, float]]], method: str, task: str) -> float:
    return row[method][task]["accuracy"] / row["full"][task]["accuracy"]
