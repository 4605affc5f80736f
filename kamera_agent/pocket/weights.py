"""The trained weights: where they lie, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

# What the model is called where a checkpoint is asked for.
POCKET = "pocket"
WEIGHTS = Path(__file__).parent / "checkpoint"


def save_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face checkpoint."""
    for part in (model, processor.tokenizer, processor.image_processor):
        part.save_pretrained(folder)


def word_ids(tokenizer: Any, words: Iterable[str]) -> torch.Tensor:
    """Token ids [words] of whole words."""
    return torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in words])
