"""Models of several classes, trained on the same tasks."""

from __future__ import annotations

from pathlib import Path

from kamera_agent.pocket.train.recipe import POCKET_RECIPE, Recipe
from kamera_agent.pocket.train.run import train

# A backbone is a recipe: its shape says what is built. Those the runtime does not carry yet join when it does.
BACKBONES: dict[str, Recipe] = {"qwen2_5_vl": POCKET_RECIPE}
SEEDS = (1, 2)


def trained(folder: Path) -> dict[str, Path]:
    """Folders of all backbones and seeds, by name. Trains what is not there yet: about an hour each on two cores."""
    models = {f"{name}-{seed}": folder / f"{name}-{seed}" for name in BACKBONES for seed in SEEDS}
    for name, recipe in BACKBONES.items():
        for seed in SEEDS:
            if not (models[f"{name}-{seed}"] / "model.safetensors").exists():
                train(recipe, models[f"{name}-{seed}"], seed)
    return models
