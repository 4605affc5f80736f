"""What 1,000 tokens keep, against the sizes that the released configurations state."""

import pytest

from benchmarks.backbones.sizes import SHAPES, kept_bytes

# K and V of two bytes a number: layers, heads, components.
LAYERS = {
    "Qwen3-VL-8B": [(36, 8, 128)],
    "Qwen3.5-9B": [(8, 4, 256)],
    # 35 layers, of which the last 15 read the KV of the others.
    "Gemma 3n E4B": [(20, 2, 256)],
    # 24 of 42 layers keep KV, every sixth of which is full.
    "Gemma 4 E4B": [(20, 2, 256), (4, 2, 512)],
    "Gemma 4 31B": [(50, 16, 256), (10, 4, 512)],
}


# Layers, heads and components of a map's keys and values; columns before the convolution, of which three are kept.
MAPS = {"Qwen3.5-9B": (24, 32, 128, 128, 8192)}


@pytest.mark.parametrize("name", LAYERS)
def test_kept_bytes(name: str) -> None:
    numbers = sum(layers * heads * components for layers, heads, components in LAYERS[name])
    layers, heads, keys, values, columns = MAPS.get(name, (0,) * 5)
    assert kept_bytes(name) == 1000 * 2 * 2 * numbers + 2 * layers * (heads * keys * (keys + values) + 3 * columns)


def test_every_shape_is_here() -> None:
    assert {*LAYERS} <= {*SHAPES}
