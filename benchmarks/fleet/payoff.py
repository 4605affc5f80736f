"""Where each tier stops paying: seconds to load a chunk of 1,000 tokens against seconds to compute it again.

    python -m benchmarks.fleet.payoff

A chunk of T tokens is worth loading from a tier where

    latency + T b / B  <  (1 - r) T f / (u F)

b bytes and f operations per token of the model; B bandwidth of the tier; F operations per second of the GPU, of which a
prefill reaches the share u; r the share of a recalled chunk that is computed again: 0 in the context that it was
computed in, 0.35 as a rule in another one. Attention over some thousand tokens and the vision encoder, which add to
computing, are left out, and so is the rotation of keys, which adds a little to loading.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.backbones.sizes import NUM_TOKENS, SHAPES, kept_bytes, token_flops
from benchmarks.fleet.assumptions import GPUS, TIERS, Gpu
from benchmarks.fleet.tiers import GB, Tier


def load_s(tier: Tier, num_bytes: float) -> float:
    """Seconds to load so many bytes."""
    return tier.latency_s + num_bytes / tier.bandwidth


def compute_s(gpu: Gpu, model: str) -> float:
    """Seconds to compute NUM_TOKENS tokens."""
    return NUM_TOKENS / gpu.tokens_per_s(token_flops(model))


def least_bandwidth(gpu: Gpu, model: str) -> float:
    """Bytes per second at which loading takes as long as computing, without latency."""
    return kept_bytes(model) / compute_s(gpu, model)


def payoff_table() -> str:
    """Markdown: milliseconds that 1,000 tokens take, computed by each GPU and loaded from each tier."""
    head = [f"computed on {gpu.name}" for gpu in GPUS] + [f"from {tier.name}" for tier in TIERS]
    rows = [
        [
            model,
            *(f"{1e3 * compute_s(gpu, model):.0f}" for gpu in GPUS),
            *(f"{1e3 * load_s(tier, kept_bytes(model)):.0f}" for tier in TIERS),
        ]
        for model in SHAPES
    ]
    return _table(["ms for 1,000 tokens", *head], rows)


def bandwidth_table() -> str:
    """Markdown: what a model keeps and computes per token, and the bandwidth above which loading pays."""
    rows = [
        [
            model,
            f"{kept_bytes(model) / NUM_TOKENS / 1e3:.0f} kB",
            f"{token_flops(model) / 1e9:.1f}",
            *(f"{least_bandwidth(gpu, model) / GB:.2f}" for gpu in GPUS),
        ]
        for model in SHAPES
    ]
    return _table(["model", "bytes per token", "GFLOP per token", *(f"GB/s, {gpu.name}" for gpu in GPUS)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


if __name__ == "__main__":
    print(f"{bandwidth_table()}\n\n{payoff_table()}")
