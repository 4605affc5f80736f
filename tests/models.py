"""Small models of the real classes, and what is measured on their logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kamera_agent import Kamera
from kamera_agent.pocket.model import Shape

MakeKamera = Callable[..., Kamera]

# Weights larger than a trained model's, so that what stands before a chunk changes its KV visibly.
TINY = Shape(
    hidden=64,
    intermediate=96,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    sections=(2, 3, 3),
    vision_depth=2,
    vision_hidden=32,
    vision_heads=2,
    initializer_range=0.15,
    max_positions=2048,
)


def screenshot(seed: int, height: int = 112, width: int = 168) -> np.ndarray:
    """[height, width, 3] uint8; 26 tokens at the default size. Equal seeds, equal pixels."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 14), -(-width // 14), 3), dtype=np.uint8)
    return np.ascontiguousarray(blocks.repeat(14, axis=0).repeat(14, axis=1)[:height, :width])


def kl(reference: torch.Tensor, other: torch.Tensor) -> float:
    """KL(reference || other) of two next-token distributions, in nats, for logits [vocab]."""
    p, q = reference.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum())


def max_error(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).abs().max())


def count_passes(kamera: Kamera, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every pass of a reply from now on."""
    sizes: list[int] = []
    extend = kamera._engine.extend

    def counting(pool: Any, placed: Any) -> torch.Tensor:
        sizes.append(len(placed.run.token_ids))
        return extend(pool, placed)

    monkeypatch.setattr(kamera._engine, "extend", counting)
    return sizes
