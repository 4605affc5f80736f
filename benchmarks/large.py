"""The large model of the benchmarks: the shape of Qwen2.5-VL-7B with seeded random weights, on a CUDA device."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from benchmarks.command import versions
from kamera_agent.pocket.model import PocketProcessor, Shape, build_model, build_processor

DEVICE, DTYPE, SEED = "cuda", torch.bfloat16, 0

SHAPE = Shape(
    hidden=3584,
    intermediate=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    sections=(16, 24, 24),
    vision_depth=32,
    vision_hidden=1280,
    vision_heads=16,
    vision_intermediate=3420,
    max_positions=128_000,
)


def build_large(benchmark: str, instead: str) -> tuple[Any, PocketProcessor]:
    """The model and its processor. Without a CUDA device, ends the program.

    benchmark: what needs the device. instead: what measures a CPU.
    """
    if not torch.cuda.is_available():
        sys.exit(f"{benchmark} needs a CUDA device, and this machine has none. {instead} measures a CPU.")
    with torch.device(DEVICE):
        model = build_model(SHAPE, seed=SEED, dtype=DTYPE)
    return model, build_processor(SHAPE)


def large_conditions(num_rounds: int) -> dict[str, Any]:
    """The conditions of the figures."""
    return {
        "model": "Qwen2.5-VL-7B shape, seeded random weights",
        "shape": asdict(SHAPE),
        "dtype": str(DTYPE).removeprefix("torch."),
        "device": torch.cuda.get_device_name(),
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "rounds": num_rounds,
        "seed": SEED,
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }
