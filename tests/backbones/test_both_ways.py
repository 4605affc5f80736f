"""Tokens of an image that see each other whatever their order."""

import torch
from models import max_error, screenshot

from benchmarks.backbones.zoo.gemma3 import TOKENS_PER_IMAGE, gemma3
from kamera_agent import Kamera
from kamera_agent.runtime.kv_pool import CAUSAL


def test_frames_do_not_see_later_frames() -> None:
    """Each frame is a block of its own; the reference is a plain forward pass of the same tokens."""
    with Kamera(*gemma3(torch.float32)) as kamera:
        window = kamera.window()
        window.add_text("first")
        window.add_frames([screenshot(seed, 70, 98) for seed in range(3)])
        assert max_error(window.reference_logits("then"), window.logits("then")) <= 1e-4
        residence = window._assembly.residence
        frames = next(there for there in residence.residents if there.place.item.kind == "frames")
        blocks = torch.cat([residence.pool.block[part.start : part.stop] for part in frames.slots.ranges])
        counted = blocks[blocks != CAUSAL].unique(return_counts=True)[1].tolist()
        assert counted == [TOKENS_PER_IMAGE] * 3
