"""Tables of the methods for models with recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from benchmarks.fidelity.score import Cells
from benchmarks.fidelity.split import RANKS
from kamera_agent.pocket.tasks import BINDING

LABELS = {
    "full": "full prefill",
    "stateless": "K and V of the full prefill, without the pictures in the state",
    "blind": "canonical",
    "attention_exact": "canonical, K and V of the full prefill",
    "recurrent_exact": "canonical, maps of the full prefill",
    "moved": "as computed before, folded in the new order",
    "unfolded": "as computed before, the state goes on",
    "moved_attention_exact": "as computed before, K and V of the full prefill",
    "moved_recurrent_exact": "as computed before, maps of the full prefill",
    "refresh_10pct": "as computed before, K and V of the full prefill at 10 % of the tokens",
    "refresh_25pct": "the same, 25 %",
    "refresh_40pct": "the same, 40 %",
    "right_columns": "canonical, right columns before each picture",
    "moved_right_columns": "as computed before, right columns",
    "wrong_columns": "full prefill, canonical columns",
    "moved_wrong_columns": "full prefill, columns as computed before",
}
RANKED = {
    "attention": "over canonical, K and V",
    "rank": "over canonical, K and V and inputs",
    "maps": "over canonical, K and V and maps",
    "base_attention": "over the base, K and V",
    "base_inputs": "over the base, K and V and inputs",
}


def split_table(name: str, cells: Cells) -> str:
    """A row per method; by event, the share of a full prefill that binding tasks keep, and the mean KL."""
    lines = [f"| {name}: kept, KL | {' | '.join(cells)} |", "|" + " --- |" * (len(cells) + 1)]
    for method, label in LABELS.items():
        lines.append(f"| {label} | {' | '.join(_figures(rows, method) for rows in cells.values())} |")
    return "\n".join(lines)


def rank_table(name: str, cells: Cells) -> str:
    """A row per kind of patch, with the same figures by rank: over canonical when every chunk is recalled, over the
    base in a second context.
    """
    lines = [
        f"| {name}: kept, KL | {' | '.join(f'rank {rank}' for rank in RANKS)} |",
        "|" + " --- |" * (len(RANKS) + 1),
    ]
    for kind, label in RANKED.items():
        rows = cells["second_context" if kind.startswith("base") else "recall_all"]
        lines.append(f"| {label} | {' | '.join(_figures(rows, f'{kind}_{rank}') for rank in RANKS)} |")
    return "\n".join(lines)


def _figures(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], method: str) -> str:
    kept = mean(cell["kept"] for task, cell in rows[method].items() if task in BINDING and cell["kept"] is not None)
    return f"{kept:.2f}, {mean(cell['kl'] for cell in rows[method].values()):.4f}"
