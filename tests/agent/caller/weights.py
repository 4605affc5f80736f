"""The trained caller: its folder, and a Kamera over it."""

from __future__ import annotations

from pathlib import Path

import torch

from kamera_agent import Kamera

CHECKPOINT = Path(__file__).parent / "checkpoint"


def open_caller(folder: Path = CHECKPOINT) -> Kamera:
    """A Kamera over a caller, without a store. The checkpoint is in float16 and runs in float32."""
    return Kamera.from_pretrained(folder, store=None, dtype=torch.float32)
