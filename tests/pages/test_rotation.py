"""Keys turned by plain numbers against those that the model's own forward pass leaves in a Hugging Face cache."""

import json

import pytest
import torch
from transformers import DynamicCache

from benchmarks.backbones.zoo import MATRIX
from kamera_agent.errors import UnsupportedModelError
from kamera_agent.runtime.capture import capture_keys
from kamera_agent.runtime.families import family_for
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.kernels.layers import Factors, LayerKV
from kamera_agent.runtime.rotation import Rotation
from kamera_agent.runtime.slot_cache import cache_argument

NUM_TOKENS = 13
ROTATED = ("qwen2_5_vl", "qwen3_vl", "glm4v", "internvl", "llava-mistral")
REFUSED = {
    "qwen3_5": "recurrent",
    "llava-deepseek_v3": "latent",
    "gemma3": "several kinds",
    "phi4_multimodal": "changes its rotary frequencies",
    "ernie4_5_vl_moe": "not made of fixed frequencies",
}


def build(name: str, dtype: torch.dtype = torch.float32) -> Family:
    return family_for(*next(row for row in MATRIX if row.name == name).build(dtype))


@torch.no_grad()
def forward(family: Family, positions: torch.Tensor) -> tuple[list[LayerKV], list[LayerKV]]:
    """Per layer, K and V of dummy tokens at positions [A, T]: K before RoPE, and as the cache has it."""
    decoder, captured, cache = family.decoder, dict[int, torch.Tensor](), DynamicCache()
    embeds = torch.randn(1, positions.shape[1], decoder.config.hidden_size).to(decoder.dtype)
    with capture_keys(decoder.key_modules, captured.__setitem__):
        where = positions[:, None] if len(positions) > 1 else positions
        decoder.module(
            inputs_embeds=embeds, position_ids=where, use_cache=True, **{cache_argument(decoder.module): cache}
        )
    heads = decoder.shapes[0].keys
    turned = [LayerKV(layer.keys[0], layer.values[0]) for layer in cache.layers]
    return [LayerKV(decoder.keys_of(captured[n], heads), layer.values) for n, layer in enumerate(turned)], turned


def positions_of(family: Family) -> torch.Tensor:
    """Each axis has a step of its own, so that a wrong axis cannot hide."""
    return torch.arange(NUM_TOKENS) * torch.arange(1, family.num_axes + 1)[:, None] + 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ROTATED)
def test_turned_keys_are_bit_for_bit_those_of_the_model(name: str, dtype: torch.dtype) -> None:
    family = build(name, dtype)
    rotation = Rotation.from_json(json.loads(json.dumps(Rotation.of(family))))
    positions = positions_of(family)
    before, after = forward(family, positions)
    for ours, theirs in zip(rotation.turned(before, None, positions), after, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("name", ROTATED)
def test_a_rotation_is_taken_back_up_to_its_own_rounding(name: str) -> None:
    """In bfloat16, two roundings of half a unit each are left: that of the turned key and that of the result."""
    family = build(name, torch.bfloat16)
    rotation, positions = Rotation.of(family), positions_of(family)
    before, after = forward(family, positions)
    for original, turned in zip(before, after, strict=True):
        back = rotation.turned_back(turned, positions)
        assert back.keys.dtype == torch.bfloat16
        assert torch.equal(back.values, original.values)
        error = (back.keys.float() - original.keys.float()).norm() / original.keys.float().norm()
        assert error < 2**-8


def test_a_patch_is_added_before_the_rotation() -> None:
    family = build("qwen2_5_vl")
    rotation, positions = Rotation.of(family), positions_of(family)
    before, _ = forward(family, positions)
    heads, width = rotation.heads, 2 * rotation.heads.num * rotation.heads.dim
    factors = [Factors(torch.randn(NUM_TOKENS, 3), torch.randn(3, width)) for _ in before]
    patched = []
    for layer, (u, v, _) in zip(before, factors, strict=True):
        keys, values = (u @ v).unflatten(1, (2, *heads)).permute(1, 2, 0, 3)
        patched.append(LayerKV(layer.keys + keys, layer.values + values))
    for one, other in zip(
        rotation.turned(before, factors, positions), rotation.turned(patched, None, positions), strict=True
    ):
        torch.testing.assert_close(one.keys, other.keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_a_model_whose_pages_cannot_be_rebuilt_alone_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        Rotation.of(build(name))
