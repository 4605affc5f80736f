"""Training: it goes on where it stopped, and trains what Hugging Face runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kamera_agent.pocket.chunks import chunk_of
from kamera_agent.pocket.model import POCKET, build_model, build_processor
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.train.gallery import cut
from kamera_agent.pocket.train.study import study
from kamera_agent.pocket.train.tower import Tower
from kamera_agent.pocket.world import World
from kamera_agent.runtime.families import family_for


def test_the_tower_in_training_is_hugging_faces() -> None:
    """Whole screens and shots through the real processor and get_image_features."""
    model, processor = build_model(POCKET), build_processor(POCKET)
    family, tower = family_for(model, processor), Tower(model.model.visual, processor.image_processor)
    source = World(np.random.default_rng(0))
    gallery = [draw(picture) for picture in (*source.window("links", 2), *source.window("moves", 1))]
    tower.whiten(torch.cat([tower.patches(cut(frames)) for frames in gallery]))
    for frames in gallery:
        with torch.no_grad():
            expected, ours = family.encode(chunk_of(family, frames)), tower(tower.patches(cut(frames)))
        assert float((expected - ours).norm() / expected.norm()) < 1e-3


def test_whitened_patches_are_white() -> None:
    model, processor = build_model(POCKET), build_processor(POCKET)
    tower = Tower(model.model.visual, processor.image_processor)
    patches = torch.cat([tower.patches(cut(draw(p))) for p in World(np.random.default_rng(0)).window("links", 4)])
    tower.whiten(patches)
    states = tower.embed(patches)
    moments = states.mT @ states / len(states)
    assert float((moments - torch.eye(len(moments))).abs().max()) < 1e-2


class Line(nn.Module):
    """y = w x: all that the loop needs to be seen at work."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def run_study(path: Path, line: Line, stop: int | None) -> list[float]:
    losses: list[float] = []

    def loss_of(done: float, rng: np.random.Generator) -> torch.Tensor:
        if stop is not None and len(losses) >= stop:
            raise KeyboardInterrupt
        return (line.weight - torch.tensor(rng.random(3))).square().sum()

    study(
        path, {"line": line}, loss_of, peak_rate=1e-2, num_steps=250, seed=7, tell=lambda _, loss: losses.append(loss)
    )
    return losses


def test_a_stopped_training_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole, parts = Line(), Line()
    losses = run_study(tmp_path / "whole.safetensors", whole, None)
    with pytest.raises(KeyboardInterrupt):
        run_study(tmp_path / "parts.safetensors", parts, stop=230)
    rest = run_study(tmp_path / "parts.safetensors", Line(), None)
    assert rest == losses[200:]
    again = Line()
    assert run_study(tmp_path / "whole.safetensors", again, None) == []
    assert torch.equal(again.weight, whole.weight)
