"""What 1,000 tokens keep, against the sizes that the released configurations state."""

import pytest

from benchmarks.backbones.sizes import SHAPES, kept_bytes, text_model, token_flops

# K and V of two bytes a number: layers, heads, components.
LAYERS = {
    "Qwen3-VL-8B": [(36, 8, 128)],
    "Qwen3.5-9B": [(8, 4, 256)],
    # 35 layers, of which the last 15 read the KV of the others.
    "Gemma 3n E4B": [(20, 2, 256)],
    # 24 of 42 layers keep KV, every sixth of which is full.
    "Gemma 4 E4B": [(20, 2, 256), (4, 2, 512)],
    "Gemma 4 31B": [(50, 16, 256), (10, 4, 512)],
    # One latent of 512 numbers and one key of 64, instead of K and V.
    "DeepSeek-V3 (MLA)": [(61, 1, (512 + 64) // 2)],
}


# Layers, heads and components of a map's keys and values; columns before the convolution, of which three are kept.
MAPS = {"Qwen3.5-9B": (24, 32, 128, 128, 8192)}


@pytest.mark.parametrize("name", LAYERS)
def test_kept_bytes(name: str) -> None:
    numbers = sum(layers * heads * components for layers, heads, components in LAYERS[name])
    layers, heads, keys, values, columns = MAPS.get(name, (0,) * 5)
    assert kept_bytes(name) == 1000 * 2 * 2 * numbers + 2 * layers * (heads * keys * (keys + values) + 3 * columns)


def test_every_shape_is_here() -> None:
    assert {*LAYERS} == {*SHAPES}


def test_operations_of_a_layer_counted_by_hand() -> None:
    """Of Qwen3-VL-8B: queries and output, keys and values, three matrices of the feed-forward part, and the norms."""
    weights = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 12288 + 2 * 4096 + 2 * 128
    assert token_flops("Qwen3-VL-8B") == 36 * 2 * weights


def test_of_experts_a_token_meets_those_that_it_takes() -> None:
    """DeepSeek-V3: eight of 256 experts in the last 58 of 61 layers."""
    with_all = sum(2 * weight.numel() for weight in text_model("DeepSeek-V3 (MLA)").layers.parameters())
    experts = 58 * 256 * 3 * 7168 * 2048
    assert token_flops("DeepSeek-V3 (MLA)") == with_all - 2 * experts * (1 - 8 / 256)
