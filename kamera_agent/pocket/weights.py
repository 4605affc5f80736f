"""The trained weights: their name and their folder."""

from __future__ import annotations

from pathlib import Path

# What the model is called where a checkpoint is asked for.
POCKET = "pocket"
WEIGHTS = Path(__file__).parent / "checkpoint"
