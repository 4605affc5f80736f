"""Figures from the events of many cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

Row = Mapping[str, Any]


def summarise(rows: Iterable[Row]) -> dict[str, Any]:
    """By event and way, and the worst share of the full prefill's right replies that windows with the
    default settings keep.

    kept: right replies over those of the full prefill. lost, won: replies that only the full prefill, or only the way,
    gets right. KL in nats, over all tokens of the replies. patches: means by way and layer.
    """
    by_event: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_event[row["event"]].append(row)
    events = {event: {way: figures(those, way) for way in those[0]["replies"]} for event, those in by_event.items()}
    return {
        **{way: _worst(events, way) for way in ("default", "settled")},
        "events": events,
        "patches": {event: patch_means([row["patches"] for row in those]) for event, those in by_event.items()},
    }


def _worst(events: Mapping[str, Mapping[str, Mapping[str, Any]]], way: str) -> dict[str, Any]:
    worst = min(events, key=lambda event: events[event][way]["kept"])
    return {"worst_kept": events[worst][way]["kept"], "worst_event": worst}


def figures(rows: Sequence[Row], way: str) -> dict[str, Any]:
    """Of the rows of one event."""
    pairs = [
        (two, right, full)
        for row in rows
        for two, right, full in zip(
            row["two_documents"], row["replies"][way]["right"], row["replies"]["full"]["right"], strict=True
        )
    ]
    divergences = [kl for row in rows for kl in row["replies"][way]["kl"]]
    result = {
        "windows": len(rows),
        "asked": len(pairs),
        "accuracy": {
            name: mean(right for two, right, _ in pairs if two == wanted)
            for name, wanted in (("one_document", False), ("two_documents", True))
        },
        "kept": sum(right for _, right, _ in pairs) / max(sum(full for _, _, full in pairs), 1),
        "lost": sum(full and not right for _, right, full in pairs),
        "won": sum(right and not full for _, right, full in pairs),
        "kl_median": median(divergences),
        "kl_mean": mean(divergences),
        "kl_worst": max(divergences),
    }
    if way in rows[0]["recomputed"]:
        result["recomputed"] = mean(row["recomputed"][way] for row in rows)
    return result


def patch_means(rows: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Means over the windows of one event, by way."""
    return {
        way: {
            "bytes_share": mean(row[way]["bytes_share"] for row in rows),
            **{
                name: [round(mean(layer), 4) for layer in zip(*(row[way][name] for row in rows), strict=True)]
                for name in ("ranks", "errors", "norms")
            },
        }
        for way in rows[0]
    }
