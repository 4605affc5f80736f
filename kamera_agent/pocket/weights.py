"""The trained weights: their name and their folder."""

from __future__ import annotations

from pathlib import Path

# The name of the model wherever a checkpoint is expected.
POCKET = "pocket"
WEIGHTS = Path(__file__).parent / "checkpoint"
