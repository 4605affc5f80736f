"""Weights for the columns of [K | V], by which a patch is truncated.

The norm of the residue counts all columns alike. But an error in K counts as much as queries use its dimension, and it
then moves attention between values. An error in V counts as much as the output projection passes it on.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.fidelity.bench import Bench, Window
from benchmarks.fidelity.cases import draw_case
from benchmarks.fidelity.state import attending_in

CASES_PER_SCENE = 4
LEAST = 1e-3
# No measured case has these seeds.
FIRST_SEED = 1_000_000


@torch.no_grad()
def column_weights(bench: Bench) -> torch.Tensor:
    """Weights [L, W] of the columns of [K | V], heads in order, from a few windows of other seeds.

    K: root mean square of the queries of questions, over the pairs of dimensions that RoPE mixes, times the spread of
    the values after the output projection. V: norm of the output projection of a dimension.
    """
    text: Any = bench.engine.family.model.model.language_model
    [shape] = bench.engine.family.decoder.shapes
    num_layers = len(shape.layers)
    squares = torch.zeros(num_layers, shape.keys.num, shape.keys.dim)
    spread = torch.zeros(num_layers)
    count = 0
    for scene in bench.ground.scenes:
        for seed in range(FIRST_SEED, FIRST_SEED + CASES_PER_SCENE):
            case = draw_case(bench.ground, scene, 3, range(3), seed)
            window = bench.window([bench.chunk(picture) for picture in case.pictures])
            window.compute(range(3))
            for question in case.questions.values():
                squares += _query_squares(text, window, bench.ask(question.text), shape)
                spread += torch.stack([layer.values.std(1).norm() for layer in attending_in(window.read(2))])
                count += 1
    out = torch.stack([layer.self_attn.o_proj.weight for layer in text.layers])
    passed = out.unflatten(2, (shape.keys.num, -1, shape.keys.dim)).square().sum(dim=(1, 3)).sqrt()
    pairs = (squares / count).unflatten(2, (2, -1)).mean(2, keepdim=True).expand(-1, -1, 2, -1).flatten(2).sqrt()
    reach = spread[:, None, None] / count * passed.mean(dim=(1, 2), keepdim=True) / shape.keys.dim**0.5
    weights = torch.stack([pairs * reach, passed], dim=1).flatten(1)
    # Components are divided by the weights, so none may be zero.
    return weights.clamp_min(LEAST * float(weights.mean()))


def _query_squares(text: Any, window: Window, question: Any, shape: Any) -> torch.Tensor:
    """Mean squares [L, H, D] of the queries of a question, before RoPE, by key head."""
    queries: list[torch.Tensor] = []
    hooks = [
        layer.self_attn.q_proj.register_forward_hook(lambda _module, _inputs, out: queries.append(out[0]))
        for layer in text.layers
    ]
    try:
        window.logits(question)
    finally:
        for hook in hooks:
            hook.remove()
    by_head = torch.stack(queries).unflatten(2, (shape.keys.num, -1, shape.keys.dim))
    return by_head.square().mean(dim=(1, 3))
