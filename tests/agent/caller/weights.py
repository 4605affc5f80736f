"""The trained caller: where it lies, and how it is opened."""

from __future__ import annotations

from pathlib import Path

import torch

from kamera_agent import Kamera

CHECKPOINT = Path(__file__).parent / "checkpoint"


def open_caller(folder: Path = CHECKPOINT) -> Kamera:
    """A Kamera over a caller, in memory only. The file holds float16; it runs in float32, as on any CPU."""
    return Kamera.from_pretrained(folder, store=None, dtype=torch.float32)
