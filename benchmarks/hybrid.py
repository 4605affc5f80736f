"""Recurrent layers of the gated delta rule: bytes, milliseconds, and what rounding a map costs.

    python -m benchmarks.hybrid [--json]

Bytes follow from the default configuration of the class, which is that of Qwen3.5-9B; no weights are needed. Times are
of one layer of this size with random weights, in float32, on this machine.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any

import torch
from transformers import Qwen3_5TextConfig, Qwen3_5TextModel

from benchmarks.command import parser_of, show, versions
from kamera_agent.runtime.families.decoder import Decoder
from kamera_agent.runtime.gated_delta import GatedDelta
from kamera_agent.runtime.recurrence import Inputs, Map

NUM_TOKENS = 1000
NUM_REPEATS = 3
SPANS = (1, 10)


def measure() -> dict[str, Any]:
    """All figures."""
    with torch.device("meta"):
        model = Qwen3_5TextModel._from_config(Qwen3_5TextConfig(), dtype=torch.bfloat16)
    decoder = Decoder(model)
    assert isinstance(decoder.recurrence, GatedDelta)
    kv_bytes = NUM_TOKENS * decoder.token_bytes
    layers = _one_layer()
    return {
        "num_tokens": NUM_TOKENS,
        "layers": {kind: decoder.kinds.count(kind) for kind in sorted(set(decoder.kinds))},
        "longest_inputs": decoder.recurrence.longest_inputs,
        "kv_bytes": kv_bytes,
        "recurrent_bytes": decoder.chunk_bytes(NUM_TOKENS) - kv_bytes,
        "input_bytes_per_token": decoder.recurrence.num_bytes(2) - decoder.recurrence.num_bytes(1),
        "ms_per_layer": _times(layers),
        "error_of_bf16_maps": {str(count): _rounding(layers, count) for count in SPANS},
        **versions(),
    }


def _one_layer() -> GatedDelta:
    """One layer of the size of Qwen3.5-9B, whose heads forget at rates from one token to thousands of tokens."""
    config = Qwen3_5TextConfig(num_hidden_layers=1, vocab_size=8, intermediate_size=8, layer_types=["linear_attention"])
    torch.manual_seed(0)
    model = Qwen3_5TextModel(config)
    mixer = model.layers[0].linear_attn
    mixer.A_log.data.copy_(torch.linspace(2, -8, len(mixer.A_log)))
    return GatedDelta({0: model.layers[0]})


def _inputs(layers: GatedDelta, num_tokens: int, seed: int) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    num_layers, width, _, size = layers.weights.shape
    num_heads = layers.start.memory.shape[1]
    shapes = (width, num_tokens), (width, size - 1), (num_tokens, num_heads), (num_tokens, num_heads)
    return Inputs(*(torch.randn(num_layers, *shape, generator=draw) for shape in shapes))


def _times(layers: GatedDelta) -> dict[str, float]:
    """Medians in milliseconds, one after the other in each round: the rule over a span, its map, and two folds."""
    span = _inputs(layers, NUM_TOKENS, 0)
    short, made = _inputs(layers, layers.longest_inputs, 1), layers.map_of(span)
    ways = {
        "rule": lambda: layers.fold(layers.start, span),
        "map": lambda: layers.map_of(span),
        "fold_map": lambda: layers.fold(layers.start, made),
        "fold_inputs": lambda: layers.fold(layers.start, short),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(NUM_REPEATS):
        for name, way in ways.items():
            start = perf_counter()
            way()
            times[name].append(1e3 * (perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def _rounding(layers: GatedDelta, num_spans: int) -> float:
    """Relative error of the state after spans of which bfloat16 maps are kept, against the same maps unrounded."""
    exact = rounded = layers.start
    for seed in range(num_spans):
        trace = layers.map_of(_inputs(layers, 2 * layers.longest_inputs, seed))
        kept, added = (part.bfloat16() for part in (trace.kept, trace.added))
        exact, rounded = layers.fold(exact, trace), layers.fold(rounded, Map(trace.tail, kept, added))
    return float((rounded.memory - exact.memory).norm() / exact.memory.norm())


if __name__ == "__main__":
    options = parser_of(__doc__).parse_args()
    with torch.no_grad():
        show(measure(), options.json)
