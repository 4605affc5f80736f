"""The tower of the pocket model, compared with Hugging Face's forward pass; other towers are left to it."""

import numpy as np
import pytest
import torch

from kamera_agent.pocket.model import SMALL_SHAPE, Backbone, build_model, build_processor
from kamera_agent.pocket.renderer import draw
from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.world import Story, World
from kamera_agent.runtime.families import family_for, load
from kamera_agent.runtime.families.local_tower import LocalTower
from training.gallery import chunk_of


@torch.no_grad()
@pytest.mark.parametrize("story", ["links", "moves"])
def test_features_are_those_of_hugging_face(story: Story) -> None:
    """1. Image or clip through the image processor. 2. Hugging Face: its features. 3. Ours: family.encode."""
    model, processor = load(str(WEIGHTS), device="cpu")
    family = family_for(model, processor)
    frames = draw(World(np.random.default_rng(0)).window(story, 1)[0])
    values = [processor.image_processor(images=[frame], return_tensors="pt") for frame in frames]
    # One frame is repeated along the temporal patch, two are joined.
    halves = [value["pixel_values"].unflatten(1, (3, 2, -1))[:, :, 0] for value in values]
    patches = torch.stack([halves[0], halves[-1]], dim=2).flatten(1)
    expected = model.model.get_image_features(patches, values[0]["image_grid_thw"], return_dict=True).pooler_output
    torch.testing.assert_close(family.encode(chunk_of(family, frames)), torch.cat(list(expected)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["qwen2_vl", "qwen2_5_vl"])
def test_a_tower_that_looks_further_is_not_ours(backbone: Backbone) -> None:
    model = build_model(SMALL_SHAPE, backbone=backbone)
    assert LocalTower.of(model.model.visual) is None
    family = family_for(model, build_processor())
    with torch.no_grad():
        assert family.encode(family.image_chunk(np.zeros((56, 56, 3), dtype=np.uint8), "")).shape == (4, 640)
