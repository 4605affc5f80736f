"""The model of the demo, made once and kept beside the store."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from kamera_agent.chunk import Key
from kamera_agent.pocket.model import Shape, build_model, build_processor

SEED = 0


def cached_model(folder: Path, shape: Shape) -> Path:
    """Folder of the checkpoint with this shape, written there first if need be.

    Another shape or seed is another checkpoint. It appears whole or not at all.
    """
    checkpoint = folder / f"demo-model-{Key.of(shape=asdict(shape), seed=SEED).digest.hex()[:12]}"
    if not checkpoint.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="demo-model-") as draft:
            whole = Path(draft, "whole")
            processor = build_processor()
            for part in (build_model(shape, seed=SEED), processor.tokenizer, processor.image_processor):
                part.save_pretrained(whole)
            whole.rename(checkpoint)
    return checkpoint
