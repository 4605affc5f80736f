"""Errors and costs of every backbone of the matrix.

    python -m benchmarks.backbones --json

Small models of the real classes with seeded random weights. The weights are larger than trained ones, so the tokens
before a chunk change its KV visibly. The window has two pictures of one size and a question.

max_err_fp32   kept: logits of a computed window against a plain Hugging Face forward pass; moved: keys moved by +1, -17
               and +1,234 against those of the text model, relative; full_rank: logits of a recalled window
kl             next-token KL of a recalled window to the full prefill, in nats: blind, and by rank of the patch
layers, weights   kinds of layers, and how weights are quantised; rows of torchao are there where it is installed
bytes_per_token_bf16   KV per token over all layers, as in pool and store; expanded: as K and V of every head
"""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from typing import Any

from benchmarks.backbones.measure import measure
from benchmarks.backbones.zoo import installed
from benchmarks.backbones.zoo.parts import SEED
from benchmarks.command import parser_of, versions


def main() -> None:
    as_json = parser_of(__doc__).parse_args().json
    families = {backbone.name: measure(backbone) for backbone in installed()}
    if as_json:
        print(json.dumps(_summary(families)))
        return
    columns = ("attention", "kept", "moved", "full rank", "KL blind", "KL rank 8")
    print(f"{'backbone':28}" + "".join(f"{column:>12}" for column in columns))
    for name, figures in families.items():
        errors, kl = figures["max_err_fp32"], figures["kl"]
        row = (*errors.values(), kl["blind"], kl["rank_8"])
        print(f"{name:28}{figures['attention']:>12}" + "".join(f"{value:>12.1e}" for value in row))


def _summary(families: dict[str, dict[str, Any]]) -> dict[str, object]:
    kinds = [figures["attention"] for figures in families.values()]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": "cpu",
        "machine": platform.machine(),
        "seed": SEED,
        "versions": versions(),
        "num_families": len(families),
        "num_mla": kinds.count("MLA"),
        "num_mha": kinds.count("MHA"),
        "num_hybrid": sum("linear_attention" in figures["layers"] for figures in families.values()),
        "num_quantised": sum(figures["weights"] is not None for figures in families.values()),
        "max_err_fp32": {
            name: max(figures["max_err_fp32"][name] for figures in families.values())
            for name in ("kept", "moved", "full_rank")
        },
        "families": families,
    }


if __name__ == "__main__":
    main()
