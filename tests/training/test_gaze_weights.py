"""Attention weights of the decoder in training, compared with those of Hugging Face's eager attention."""

import numpy as np
import torch

from kamera_agent.pocket.weights import WEIGHTS
from kamera_agent.pocket.world import World
from kamera_agent.runtime.families import family_for, load
from training.attention import ATTENTION
from training.bank import Album
from training.decoding import Decoder, Lessons
from training.gaze import HEADS


@torch.no_grad()
def test_heads_look_where_eager_attention_says() -> None:
    """Every gaze of a batch of three windows that differ in length, and the states after the last layer."""
    family = family_for(*load(str(WEIGHTS), device="cpu"))
    world = World(np.random.default_rng(5))
    windows = [world.window("links", 3), world.window("changes", 2), world.window("day", 6)]
    num_cells = sum(picture.columns * picture.rows for window in windows for picture in window)
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(num_cells, 128))).float()
    decoder = Decoder(family)
    batch = Lessons(family, Album(windows, table)).batch(windows, np.random.default_rng(1))
    ours = decoder._run(batch, table)
    assert decoder.text.config._attn_implementation == ATTENTION
    decoder.text.config._attn_implementation = "eager"
    eager = decoder._run(batch, table)
    real = torch.arange(batch.token_ids.shape[1]) <= batch.targets[1].max()
    torch.testing.assert_close(ours.last_hidden_state[:, real], eager.last_hidden_state[:, real], atol=1e-3, rtol=1e-3)
    compared = 0
    for gaze, heads in HEADS.items():
        _, rows, places, keys = batch.gazes[gaze]
        for layer, head in heads:
            weights = ours.attentions[layer].of(head, rows, places, keys)
            torch.testing.assert_close(weights, eager.attentions[layer][rows, head, places, keys], atol=1e-5, rtol=1e-3)
            compared += len(weights)
    assert compared > 500
