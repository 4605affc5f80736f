"""The cost and the gain of bases in int8, and of V in 4 bits, on the trained pocket model.

    python -m benchmarks.compression --json

Windows of three pictures and a question. One Kamera computes and remembers a window; a second one over the same store
recalls all three pictures after the same antecedents: with patches over canonical KV, and from bases that were first
computed in that very context, which need no patch.

thin     what 4 bits for V would do: bases in int8 whose V has 15 levels, with one step per token as before. The store
         has no such form and keeps them as int8; base_bytes is what they would take in one

kl       mean divergence of its next-token distribution from that of a full prefill, in nats
same     share of windows in which both have the same most probable token
base_bytes, patch_bytes   means per chunk
error    mean relative error of the patches
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.command import parser_of, show, versions
from benchmarks.fidelity.cases import POCKET_GROUND, SCENES, Case, draw_case
from kamera_agent import Kamera, Window
from kamera_agent.pocket.renderer import draw
from kamera_agent.runtime.compression import compressed
from kamera_agent.runtime.kernels.layers import LayerKV
from kamera_agent.telemetry.drift import divergence

NUM_PICTURES = 3
BASES: tuple[dict[str, Any], ...] = (
    *({"base": "canonical", "rank": rank} for rank in (8, 32, "auto")),
    {"base": "first"},
)
DTYPES = ("full", "int8", "thin")
LARGEST_IN_4_BITS = 7


def draw_cases(count: int) -> list[Case]:
    """Cases of all scenes in turn."""
    scenes, after = [*SCENES], range(NUM_PICTURES)
    return [draw_case(POCKET_GROUND, scenes[seed % len(scenes)], NUM_PICTURES, after, seed) for seed in range(count)]


def look(kamera: Kamera, case: Case) -> Window:
    """A window of the case's pictures."""
    window = kamera.window()
    for picture in case.pictures:
        shown = draw(picture)
        window.add_image(shown if shown.ndim == 3 else shown[0])
    return window


def thin(layer: LayerKV) -> LayerKV:
    """A layer in int8 whose V would fit in 4 bits."""
    values = layer.values.float()
    steps = values.abs().amax(2, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny) / LARGEST_IN_4_BITS
    return compressed(layer)._replace(values=(values / steps).round().to(torch.int8), value_steps=steps)


def measure(first: Kamera, cases: Sequence[Case], **options: Any) -> dict[str, float]:
    """Figures for one set of options, as means over the cases."""
    is_thin = options["base_dtype"] == "thin"
    options = {"base": "canonical", **options} | ({"base_dtype": "int8"} if is_thin else {})
    divergences, same, sizes, errors = [], [], {"base": [0], "patch": [0]}, []
    for case in cases:
        question = next(iter(case.questions.values())).text
        with (
            patch("kamera_agent.window.records.compressed", thin if is_thin else compressed),
            Kamera(first.family.model, first.family.processors, **options) as writer,
        ):
            window = look(writer, case)
            window.logits(question)
            full = window.reference_logits(question)
            writer.flush()
            with Kamera(first.family.model, first.family.processors, store=writer.store, **options) as reader:
                window = look(reader, case)
                recalled = window.logits(question)
                assert {span.origin for span in window.spans if span.kind == "image"} == {"recalled"}
            headers = writer.store.headers()
            if is_thin:
                bases = writer.store.get_many([header.key for header in headers if header.kind == "base"]).values()
                sizes["base"] += [-layer[1].nbytes // 2 for base in bases for layer in base.layers]
        divergences.append(divergence(full, recalled))
        same.append(float(full.argmax() == recalled.argmax()))
        for header in headers:
            sizes[header.kind].append(header.num_bytes)
        errors += [header.attributes["error"] for header in headers if header.kind == "patch"]
    return {
        "kl": round(statistics.mean(divergences), 6),
        "same": round(statistics.mean(same), 4),
        "base_bytes": round(sum(sizes["base"]) / (NUM_PICTURES * len(cases))),
        "patch_bytes": round(sum(sizes["patch"]) / (NUM_PICTURES * len(cases))),
        "error": round(statistics.mean(errors or [0.0]), 4),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cases", type=int, default=60, help="windows (default 60)")
    options = parser.parse_args()
    cases, ways = draw_cases(options.cases), []
    with Kamera.pocket() as first:
        for base, dtype in product(BASES, DTYPES):
            way = {**base, "base_dtype": dtype}
            figures = measure(first, cases, **way)
            print("  ".join(f"{name} {value}" for name, value in (way | figures).items()), flush=True)
            ways.append(way | figures)
    result = {
        "ways": ways,
        "conditions": {
            "model": "pocket",
            "dtype": "float32",
            "pictures": NUM_PICTURES,
            "cases": options.cases,
            **versions(),
            "date": datetime.now(UTC).date().isoformat(),
        },
    }
    show(result, options.json)


if __name__ == "__main__":
    main()
