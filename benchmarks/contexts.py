"""Bytes that a store takes for a chunk that was seen in several contexts, over those of as many full copies of its KV.

The chunk is a screenshot of 1280x720, computed by a random model in bfloat16. In each context, another screenshot is
before it. The first KV becomes its base, each later one a patch of at most a share of the bytes of the KV. Random
weights leave residues of full rank, so the patches use up their share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kamera_agent import Kamera
from kamera_agent.config import BaseDtype
from kamera_agent.pocket.model import Shape, build_model, build_processor
from kamera_agent.vision.image import Pixels

# Two heads of 256 components for keys and values.
SHAPE = Shape(
    hidden=1024,
    intermediate=1024,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    sections=(32, 48, 48),
    vision_depth=1,
    vision_hidden=64,
    vision_heads=2,
    initializer_range=0.1,
)
BYTE_BUDGET = 0.12
COUNTS = (1, 2, 3, 8)
SIZE, SMALL_SIZE = (720, 1280), (56, 84)


def noise(seed: int, size: tuple[int, int]) -> Pixels:
    """A picture [H, W, 3] of random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def measure_contexts() -> dict[str, Any]:
    """Shares of the bytes by the number of contexts, for each dtype of bases, and the conditions."""
    model, processor = build_model(SHAPE, dtype=torch.bfloat16), build_processor(SHAPE)
    shares = {dtype: _shares(model, processor, dtype) for dtype in ("full", "int8")}
    return {**shares, "byte_budget": BYTE_BUDGET, "dtype": "bfloat16", "heads": [SHAPE.num_kv_heads, 256]}


def _shares(model: Any, processor: Any, base_dtype: BaseDtype) -> dict[str, float]:
    shares = {}
    # No error is small enough, so that the byte budget alone decides.
    budgets = {"byte_budget": BYTE_BUDGET, "error_budget": 1e-6}
    with Kamera(model, processor, base_dtype=base_dtype, stale="compute", heal="never", **budgets) as kamera:
        chunk = kamera.family.image_chunk(noise(0, SIZE), kamera.settings.namespace)
        copy_bytes = len(chunk.token_ids) * kamera.family.decoder.token_bytes
        for count in range(1, COUNTS[-1] + 1):
            window = kamera.window()
            window.add_image(noise(count, SMALL_SIZE))
            window.add_image(chunk.pixels)
            window.logits("What is it?")
            kamera.flush()
            if count in COUNTS:
                num_bytes = sum(header.num_bytes for header in kamera.store.headers(chunk.digest))
                shares[str(count)] = round(num_bytes / (count * copy_bytes), 2)
    return shares
