"""The test model that calls tools, with room for the long prompts of agents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

CALLER = Path(__file__).parents[2] / "tests/agent/caller/checkpoint"
# It was trained on short prompts. Beyond them its words are noise, and a grammar alone makes calls of them.
MAX_POSITIONS = 65536


def write_checkpoint(folder: Path) -> None:
    """Write the model into a new folder."""
    shutil.copytree(CALLER, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["text_config"]["max_position_embeddings"] = MAX_POSITIONS
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
