"""The checkpoint that all engines load: a Qwen2.5-VL of about 60 million parameters with seeded random weights."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copy

from kamera_agent.pocket.model import SMALL_SHAPE, build_model
from kamera_agent.pocket.weights import WEIGHTS

SEED = 20260623


def write_checkpoint(folder: Path) -> None:
    """Write the model, with the tokenizer, the template and the options of pictures of the pocket model."""
    for path in (*WEIGHTS.glob("*token*"), WEIGHTS / "chat_template.jinja"):
        copy(path, folder)
    build_model(seed=SEED).save_pretrained(folder)
    options = json.loads((WEIGHTS / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**options, "patch_size": SMALL_SHAPE.patch_size}))
