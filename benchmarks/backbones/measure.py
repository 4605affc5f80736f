"""Errors of one backbone, and the size of its KV."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.backbones.keys import keys_of_model
from benchmarks.backbones.zoo import Backbone
from kamera_agent import Kamera, Window
from kamera_agent.store.base import Store
from kamera_agent.telemetry.drift import divergence

RANKS = (4, 8, 16, 32)
SHIFTS = (1, -17, 1234)
START = 20
SIZE = (70, 98)
CELL = 14
QUESTION = "what is it?"


def measure(backbone: Backbone) -> dict[str, Any]:
    """Errors in float32, divergence by rank, and bytes of KV per token in bfloat16."""
    model, processor = backbone.build(torch.float32)

    def kamera(store: Store | None = None, **options: Any) -> Kamera:
        return Kamera(model, processor, store, **options)

    with kamera() as first:
        window = _see(first)
        reference = window.reference_logits(QUESTION)
        kept = _largest(reference, window.logits(QUESTION))
        moved = _moved(first)
        chunk_tokens = len(first.family.image_chunk(_picture(0), "default").token_ids)
        decoder = first.family.decoder
    full_rank, _ = _recall(kamera, reference, chunk_tokens)
    ranks = [rank for rank in RANKS if rank <= chunk_tokens]
    return {
        "attention": backbone.attention,
        "layers": sorted({*decoder.kinds}),
        "weights": backbone.weights,
        "chunk_tokens": chunk_tokens,
        "max_err_fp32": {"kept": kept, "moved": moved, "full_rank": full_rank},
        "kl": {"blind": _recall(kamera, reference, None)[1]}
        | {f"rank_{rank}": _recall(kamera, reference, rank)[1] for rank in ranks}
        | {"full": _recall(kamera, reference, chunk_tokens)[1]},
        "bytes_per_token_bf16": decoder.token_bytes * torch.bfloat16.itemsize // decoder.dtype.itemsize,
        "expanded_bytes_per_token_bf16": decoder.expanded_bytes * torch.bfloat16.itemsize // decoder.dtype.itemsize,
    }


def _see(kamera: Kamera) -> Window:
    window = kamera.window()
    for seed in range(2):
        window.add_image(_picture(seed))
    return window


def _recall(kamera: Any, reference: torch.Tensor, rank: int | None) -> tuple[float, float]:
    """Largest error of the logits, and KL, of a window recalled with patches of a rank. rank None: blind."""
    options: dict[str, Any] = {"base": "canonical"} | ({"rank": rank} if rank else {"fidelity": "blind"})
    with kamera(**options) as first:
        _see(first).logits(QUESTION)
        first.flush()
        if rank is None:
            first.store.delete([header.key for header in first.store.headers() if header.kind == "patch"])
        with kamera(first.store, **options) as second:
            logits = _see(second).logits(QUESTION)
    return _largest(reference, logits), divergence(reference, logits)


@torch.no_grad()
def _moved(kamera: Kamera) -> float:
    """Largest relative error, over layers and shifts, of moved keys against those of the text model."""
    engine, family = kamera._engine, kamera.family
    chunk = family.image_chunk(_picture(0), "default")
    embeds, num_tokens = engine.embed(chunk), len(chunk.token_ids)
    pool = engine.new_pool()
    slots = pool.allocate(num_tokens)
    pool.place(slots, 0, family.both_ways(chunk))
    engine.forward_at(pool, slots, embeds, chunk.offsets + START)
    errors = []
    for shift in SHIFTS:
        positions = chunk.offsets + START + shift
        pool.relocate(slots, family.decoder.rope_tables(positions))
        pool.settle(slots)
        for layer, expected in keys_of_model(kamera, chunk, embeds, positions).items():
            errors.append(float((pool.rows[layer].keys[:, :num_tokens] - expected).norm() / expected.norm()))
    return max(errors)


def _picture(seed: int) -> np.ndarray:
    """A picture [70, 98, 3] uint8 of cells of one colour each."""
    cells = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // CELL, SIZE[1] // CELL, 3), dtype=np.uint8)
    return np.ascontiguousarray(cells.repeat(CELL, axis=0).repeat(CELL, axis=1))


def _largest(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).abs().max())
