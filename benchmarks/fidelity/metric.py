"""What reads the KV: a weight for every column of a chunk's [K | V], to truncate a patch by.

The norm of the residue counts all columns alike. But an error in K matters as far as queries look at that dimension,
and then moves attention between values; an error in V matters as far as the output projection passes it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.fidelity.bench import Bench, Window
from benchmarks.fidelity.cases import draw_case

CASES_A_SCENE = 4
LEAST = 1e-3
# Seeds of no case that is measured.
FIRST_SEED = 1_000_000


@torch.no_grad()
def column_weights(bench: Bench) -> torch.Tensor:
    """Weights [L, W] over the columns of [K | V], heads in order, from a few windows of other seeds.

    K: root mean square of the queries that questions ask with, over pairs of dimensions, which RoPE mixes, times how
    far values differ behind the output projection. V: norm of the output projection of a dimension.
    """
    text: Any = bench.engine.family.model.model.language_model
    shape = bench.engine.family.decoder.kv_shape
    squares = torch.zeros(shape.num_layers, shape.keys.num, shape.keys.dim)
    spread = torch.zeros(shape.num_layers)
    count = 0
    for scene in bench.ground.scenes:
        for seed in range(FIRST_SEED, FIRST_SEED + CASES_A_SCENE):
            case = draw_case(bench.ground, scene, 3, seed, reorders=True)
            window = bench.window([bench.chunk(picture) for picture in case.window])
            window.compute(range(3))
            for question in case.questions.values():
                squares += _query_squares(text, window, bench.ask(question.text), shape)
                spread += torch.stack([window.read(2)[layer].values.std(1).norm() for layer in range(shape.num_layers)])
                count += 1
    out = torch.stack([layer.self_attn.o_proj.weight for layer in text.layers])
    passed = out.unflatten(2, (shape.keys.num, -1, shape.keys.dim)).square().sum(dim=(1, 3)).sqrt()
    pairs = (squares / count).unflatten(2, (2, -1)).mean(2, keepdim=True).expand(-1, -1, 2, -1).flatten(2).sqrt()
    reach = spread[:, None, None] / count * passed.mean(dim=(1, 2), keepdim=True) / shape.keys.dim**0.5
    weights = torch.stack([pairs * reach, passed], dim=1).flatten(1)
    # Dimensions that no query looks at count for little, but a weight is divided by.
    return weights.clamp_min(LEAST * float(weights.mean()))


def _query_squares(text: Any, window: Window, question: Any, shape: Any) -> torch.Tensor:
    """Mean squares of a question's queries before RoPE, by key head: [L, H, D]."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.q_proj.register_forward_hook(lambda _module, _given, out: seen.append(out[0]))
        for layer in text.layers
    ]
    try:
        window.logits(question)
    finally:
        for hook in hooks:
            hook.remove()
    return _by_key_head(seen, shape)


def _by_key_head(seen: Sequence[torch.Tensor], shape: Any) -> torch.Tensor:
    queries = torch.stack(list(seen)).unflatten(2, (shape.keys.num, -1, shape.keys.dim))
    return queries.square().mean(dim=(1, 3))
