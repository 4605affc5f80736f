"""What the turns of a fleet amount to: shares, bytes, seconds and dollars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.fleet.assumptions import MONTH_S, STEP_S, Gpu
from benchmarks.fleet.simulation import Fleet, Turn
from benchmarks.fleet.tiers import GB, Tier

# Round trips of a turn to a tier that is not in the process: names and headers of its chunks, and then what it reads.
ASKING, READING = 2, 1
MILLION = 10**6


def summary(
    turns: Sequence[Turn], fleet: Fleet, tiers: Sequence[Tier], gpus: Sequence[Gpu], token_flops: float
) -> dict[str, Any]:
    """Figures of the second half of the turns; the first half fills the tiers.

    Of the screens that are not in the pool, hit: recalled from a tier; new: nobody in the fleet has seen before; other:
    known, but computed after others, or evicted, so they are computed again.
    """
    early, late, seen = turns[: len(turns) // 2], turns[len(turns) // 2 :], set[str]()
    _new_screens(early, seen)
    num_new = _new_screens(late, seen)
    origins = Counter(origin for turn in late for origin in turn.origins)
    num_asked = origins["recalled"] + origins["computed"]
    ways: dict[str, Callable[[Turn], float]] = {
        "ours": lambda turn: turn.plan.num_computed,
        "prefix": lambda turn: turn.num_prefix,
        "full": lambda turn: turn.plan.num_tokens(),
    }
    tokens = {way: mean(map(count, late)) for way, count in ways.items()}
    loading = mean(loading_s(turn, tiers) for turn in late)
    return {
        "hit": round(origins["recalled"] / num_asked, 3),
        "new": round(num_new / num_asked, 3),
        "other": round((origins["computed"] - num_new) / num_asked, 3),
        "tokens_per_step": {way: round(count) for way, count in tokens.items()},
        "read_mb_per_step": {
            tier.name: round(mean(turn.served.num_bytes[number] for turn in late) / 1e6, 1)
            for number, tier in enumerate(tiers)
        },
        "loading_ms": round(1e3 * loading, 1),
        "tier_dollars": round(tier_dollars(fleet, tiers), 1),
        "gpus": {gpu.name: _on(gpu, tokens, loading, token_flops) for gpu in gpus},
    }


def _on(gpu: Gpu, tokens: Mapping[str, float], loading: float, token_flops: float) -> dict[str, dict[str, float]]:
    """Time to first token by way, and the dollars of the GPU for a million steps. tokens: of a step. loading: in s."""
    seconds = {way: count / gpu.tokens_per_s(token_flops) for way, count in tokens.items()}
    waits = {"ours": loading}
    return {
        "first_token_ms": {way: round(1e3 * (spent + waits.get(way, 0.0)), 1) for way, spent in seconds.items()},
        "gpu_dollars": {way: round(MILLION * spent * gpu.dollars / 3600, 1) for way, spent in seconds.items()},
    }


def loading_s(turn: Turn, tiers: Sequence[Tier]) -> float:
    """Seconds that a turn waits for its tiers, one after the other."""
    is_asked = any(origin in ("recalled", "computed") for origin in turn.origins)
    return sum(
        num_bytes / tier.bandwidth + tier.latency_s * (ASKING * is_asked + READING * (num_bytes > 0))
        for tier, num_bytes in zip(tiers, turn.served.num_bytes, strict=True)
    )


def tier_dollars(fleet: Fleet, tiers: Sequence[Tier]) -> float:
    """What the tiers cost, full or not, while the agents of a fleet take a million steps."""
    months = MILLION / (fleet.num_machines * fleet.num_agents) * STEP_S / MONTH_S
    return months * sum(
        tier.dollars * tier.cap_bytes / GB * (1 if tier.shared else fleet.num_machines) for tier in tiers
    )


def _new_screens(turns: Sequence[Turn], seen: set[str]) -> int:
    """Number of the screens of turns that are not among those seen; adds them."""
    before = len(seen)
    seen |= {screen for turn in turns for screen in turn.screens}
    return len(seen) - before
