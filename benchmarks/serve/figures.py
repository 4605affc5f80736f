"""The figures of one client."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from benchmarks.serve.replay import Step


def summary(steps: Sequence[Step]) -> dict[str, Any]:
    """Sums over all steps, ratios of sums, shares, and the cached share of every step."""
    full = [len(step.full.prompt) for step in steps]
    computed = {name: [step.given[name].computed or 0 for step in steps] for name in ("ours", "exact")}
    computed["prefix"] = [step.prefix for step in steps]
    sums = {name: sum(tokens) for name, tokens in computed.items()}
    return {
        "computed_ratio_prefix": round(sums["prefix"] / sums["ours"], 3),
        "agree_exact": _agreement(steps, "exact"),
        "agree": _agreement(steps, "ours"),
        "num_answers": len({step.full.text for step in steps}),
        "tokens": {"full": sum(full), **sums},
        **_times(steps),
        "background_s": round(sum(step.background_s["ours"] for step in steps), 1),
        "cached_share": {
            name: [round(1 - part / whole, 2) for part, whole in zip(tokens, full, strict=True)]
            for name, tokens in computed.items()
        },
    }


def _agreement(steps: Sequence[Step], name: str) -> float:
    """Share of the steps in which a server gives the answer of a full prefill."""
    return round(mean(step.given[name].text == step.full.text for step in steps), 3)


def _times(steps: Sequence[Step]) -> dict[str, Any]:
    times = {name: [step.given[name].first_ms for step in steps] for name in steps[0].given}
    figures: dict[str, Any] = {"first_ms_p50": {name: round(median(ms), 1) for name, ms in times.items()}}
    if "transformers" in times:
        pairs = [*zip(times["transformers"], times["ours"], strict=True)]
        figures["ttft_ratio_transformers"] = round(sum(times["transformers"]) / sum(times["ours"]), 3)
        figures["steps_slower"] = sum(ours > theirs for theirs, ours in pairs)
    return figures
