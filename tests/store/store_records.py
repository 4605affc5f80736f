"""Records of known bytes, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.torture.records import make_key
from kamera_agent.chunk import Record

KIB = 1024
AWKWARD_SHAPES = [(), (0,), (1,), (63,), (3, 0, 5), (1, 217, 3), (2, 100, 7)]


def random_tensor(shape: Sequence[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random bits, NaN and infinity among them."""
    generator = torch.Generator().manual_seed(seed)
    num_bytes = torch.empty(tuple(shape), dtype=dtype).numel() * dtype.itemsize
    bits = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8, generator=generator)
    return bits.view(dtype).reshape(tuple(shape))


def make_record(
    name: str,
    shapes: Sequence[Sequence[int]] = ((16, 16), (16, 16)),
    dtype: torch.dtype = torch.float32,
    num_layers: int = 2,
    seed: int = 0,
    **fields: Any,
) -> Record:
    """A record whose bytes follow from the name, the seed and the layer."""
    key = make_key(name)
    base = int.from_bytes(key.digest[:4], "big") + seed
    layers = [
        [random_tensor(shape, dtype, base + 100 * layer + place) for place, shape in enumerate(shapes)]
        for layer in range(num_layers)
    ]
    return Record.of(key, fields.pop("chunk", key.digest), fields.pop("kind", "base"), layers, **fields)


def record_of_bytes(name: str, num_bytes: int, seed: int = 0, **fields: Any) -> Record:
    """A one-layer record of exactly that many tensor bytes."""
    return make_record(name, [(num_bytes,)], torch.uint8, num_layers=1, seed=seed, **fields)


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_795_824_000_000_000_000

    def __call__(self) -> int:
        return self.now
