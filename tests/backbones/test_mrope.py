"""Positions on three axes, and deepstack."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from models import MakeKamera, screenshot
from prompts import Clip, Talk
from rows import Row, named
from test_clips import fill
from transformers import DynamicCache

from kamera_agent.runtime.slot_cache import cache_argument

IMAGES = [screenshot(seed, *size) for seed, size in enumerate([(70, 98), (126, 84), (84, 154), (38, 200)])]
# Of one size, so that one rank is full for both.
TWINS = [IMAGES[0], screenshot(9, 70, 98)]
CLIP = Clip([screenshot(20 + i, 54, 72) for i in range(5)], fps=1.6)
LAYOUTS: dict[str, list[Any]] = {
    "images": ["first", *IMAGES[:2], "then", *IMAGES[2:]],
    "clips": ["first", CLIP, "then", CLIP],
}
QUESTION = "what is it?"
DEEP = named("qwen3_vl", "qwen3_vl_moe")
ALL = named("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni_thinker", "glm4v", "glm4v_moe", "glm46v", "glm_ocr") + DEEP
STILLS = named("paddleocr_vl", "ernie4_5_vl_moe")
AXES = [
    pytest.param(*row.values, layout, id=f"{row.id}-{layout}")
    for layout in LAYOUTS
    for row in (ALL + STILLS if layout == "images" else ALL)
]


@pytest.mark.parametrize(("row", "layout"), AXES, indirect=["row"])
def test_every_axis(row: Row, make: MakeKamera, layout: str) -> None:
    """Token for token what the model gives the whole prompt: four grids, two adjacent; two clips."""
    kamera = make(fidelity="exact")
    decoder = kamera.family.decoder.module
    with handed_to(decoder) as theirs, torch.no_grad():
        row.model(**Talk(row.model, row.processor).say("user", *LAYOUTS[layout], QUESTION).inputs())
    window = kamera.window()
    fill(window, LAYOUTS[layout])
    with handed_to(decoder) as ours:
        window.logits(QUESTION)
    expected, positions = theirs["position_ids"][-3:, 0], ours["position_ids"][:, 0]
    assert torch.equal(positions, expected)
    assert all(not torch.equal(positions[one], positions[other]) for one, other in ((0, 1), (1, 2), (0, 2)))


@contextmanager
def handed_to(module: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """While open, gathers the keyword arguments of a module's forward pass."""
    seen: dict[str, Any] = {}
    hook = module.register_forward_pre_hook(lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("row", DEEP, indirect=True)
def test_deepstack_of_antecedents(row: Row, make: MakeKamera) -> None:
    """A recalled image's keys are those after an image whose deepstack features were seen, and no others."""
    rank = len(make().family.image_chunk(TWINS[0], "default").token_ids)
    first = make(rank=rank)
    fill(seen := first.window(), TWINS)
    seen.logits()
    first.flush()
    window = make(store=first.store, rank=rank).window()
    _, second = fill(window, TWINS)
    window.logits()
    span = next(span for span in window.spans if span.id == second)
    assert span.origin == "recalled"
    [bank] = window._assembly.residence.pool.banks
    keys = bank.keys[:, :, span.slots[0].start : span.slots[0].stop].clone()
    expected, shallow = (keys_behind(row, deepstack=deepstack)[:, :, -keys.shape[2] :] for deepstack in (True, False))
    for layer in range(2, len(keys)):
        error = float((keys[layer] - expected[layer]).norm() / expected[layer].norm())
        assert error <= 1e-3, f"layer {layer}"
        assert float((shallow[layer] - expected[layer]).norm() / expected[layer].norm()) > 20 * max(error, 1e-3)


@torch.no_grad()
def keys_behind(row: Row, *, deepstack: bool) -> torch.Tensor:
    """Keys [L, H, T, D] of two images up to the end of the second, by plain Hugging Face.

    deepstack: whether the features of the first are added.
    """
    inputs = Talk(row.model, row.processor).say("user", *TWINS).inputs()
    num_first = int(inputs["image_grid_thw"][0].prod()) // 4

    def blind(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        for level in () if deepstack else kwargs["deepstack_visual_embeds"]:
            level[:num_first] = 0

    hook = row.model.model.language_model.register_forward_pre_hook(blind, with_kwargs=True)
    cache = DynamicCache()
    try:
        row.model(**inputs, **{cache_argument(row.model): cache})
    finally:
        hook.remove()
    closing = row.model.config.vision_end_token_id
    end = int((inputs["input_ids"][0] == closing).nonzero().max()) + 1
    return torch.stack([layer.keys[0, :, :end] for layer in cache.layers])
