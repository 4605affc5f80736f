"""Tables of a run on real weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def as_markdown(report: Mapping[str, Any]) -> str:
    """A table of the events and ways, and one of the patches by layer, where they have all bases."""
    patches = report["patches"]
    tables = [_events(report["events"]), *([_layers(patches)] if "second_context" in patches else [])]
    return "\n\n".join(tables)


def _events(events: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    head = "| event | way | one document | two documents | kept | lost, won | KL median | mean | worst |"
    lines = [head, "|" + " --- |" * 9]
    for event, ways in events.items():
        for way, row in ways.items():
            one, two = row["accuracy"].values()
            lines.append(
                f"| {event} | {way} | {one:.3f} | {two:.3f} | {row['kept']:.3f} | {row['lost']}, {row['won']} | "
                f"{row['kl_median']:.4f} | {row['kl_mean']:.4f} | {row['kl_worst']:.2f} |"
            )
    return "\n".join(lines)


def _layers(patches: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Of second_context, where every base occurs: ranks and errors, by layer."""
    ways = patches["second_context"]
    lines = ["| layer |" + "".join(f" {way}: norm | rank | error |" for way in ways)]
    lines.append("|" + " --- |" * (1 + 3 * len(ways)))
    columns: list[Sequence[float]] = [row[name] for row in ways.values() for name in ("norms", "ranks", "errors")]
    for layer, figures in enumerate(zip(*columns, strict=True)):
        triples = [figures[start : start + 3] for start in range(0, len(figures), 3)]
        lines.append(
            f"| {layer} |" + "".join(f" {norm:.2f} | {rank:.0f} | {error:.2f} |" for norm, rank, error in triples)
        )
    return "\n".join(lines)
