"""Images of every size are read as PIL images of the same pixels are, which say themselves where their colours are."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rows import named

from kamera_agent import ImageError, InputError, Kamera, VideoError
from kamera_agent.runtime.families.image_text import ImageText

WRITTEN = ["gemma3", "llava", "llava_next", "idefics3", "deepseek_vl", "deepseek_vl_hybrid", "aya_vision", "ovis2"]
BY_RULE = ["llava-mistral", "llava_onevision", "internvl", "smolvlm", "mistral3", "kimi_k25", "phi4_multimodal"]
SIZES = [(1, 60), (3, 60), (4, 61), (60, 3)]
# Edges that Pixtral scales to nothing, and one square of patches, which the encoder of Mistral 3 does not take.
EXTREME = {
    "llava-mistral": [(10, 1900), (1, 5000)],
    "mistral3": [(1, 1), (24, 24), (1900, 10)],
    "qwen2_vl": [(1, 5000)],
}


@pytest.fixture(scope="module")
def kamera(request: pytest.FixtureRequest) -> Iterator[Kamera]:
    backbone, _ = request.param
    with Kamera(*backbone.build(torch.float32)) as kamera:
        yield kamera


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("kamera", named(*WRITTEN, *BY_RULE), indirect=True)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{1}x{0}".format(*size))
def test_pixels_are_those_of_a_pil_image(kamera: Kamera, size: tuple[int, int]) -> None:
    family, pixels = kamera.family, noise(*size)
    assert isinstance(family, ImageText)
    options: dict[str, Any] = {"return_tensors": "pt", **family.image_options}
    expected = family.processors.image_processor(images=[Image.fromarray(pixels)], **options)
    for name, value in family.image_inputs([pixels]).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("kamera", named(*WRITTEN), indirect=True)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{1}x{0}".format(*size))
def test_tokens_are_those_of_a_pil_image(kamera: Kamera, size: tuple[int, int]) -> None:
    family, pixels = kamera.family, noise(*size)
    assert isinstance(family, ImageText)
    prompt = {"text": [family.image_text], "images": [Image.fromarray(pixels)]}
    expected = family.processors.whole(**prompt, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
    assert list(family.image_chunk(pixels, "default").token_ids) == expected.tolist()


@pytest.mark.parametrize("kamera", named(*EXTREME), indirect=True)
def test_a_size_that_cannot_be_used_is_refused_before_any_work(kamera: Kamera, request: pytest.FixtureRequest) -> None:
    window = kamera.window()
    before = window.spans
    for height, width in EXTREME[request.node.callspec.id]:
        with pytest.raises(ImageError, match=rf"an image of {width}x{height}: .*; crop, pad or resize it"):
            window.add_image(noise(height, width))
        with pytest.raises(VideoError, match=rf"frames of {width}x{height}: .*; crop, pad or resize them"):
            window.add_frames(noise(2, height, width))
    assert window.spans == before
    assert kamera.stats().encoder_calls == 0


@pytest.mark.parametrize("kamera", named("llava-mistral", "mistral3", "qwen2_vl", "gemma3"), indirect=True)
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (10, 1900), (1900, 10), (1, 5000)])
def test_a_size_is_served_or_refused(kamera: Kamera, size: tuple[int, int]) -> None:
    window = kamera.window()
    try:
        window.add_image(noise(*size))
    except InputError:
        return
    assert window.logits("what?").isfinite().all()
