"""Fingerprints and chunk keys: the same pixels give one key, any other fact gives another."""

import json
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import encode, noise
from PIL import Image

from kamera_agent.chunk import Key
from kamera_agent.vision.fingerprint import chunk_key, fingerprint_frames, fingerprint_image, fingerprint_layout
from kamera_agent.vision.image import Pixels, decode_image

PIXELS = noise(30, 100, 3)
MODEL = {"config": {"rms_norm_eps": 1e-6}, "weights": "abc", "adapters": [], "anchor": [1, 2]}
PROCESSOR = {"image": {"max_pixels": 1000}, "picture": "ab"}

LAYOUT = (7, 8, 8), np.arange(9).reshape(3, 3)


def key_of(pixels: Pixels = PIXELS, **changes: Any) -> Key:
    facts = {
        "kind": "image",
        "pixels_digest": fingerprint_image(pixels),
        "shape": pixels.shape,
        "timestamps": (),
        "layout_digest": fingerprint_layout(LAYOUT[0], LAYOUT[1]),
        "model_identity": MODEL,
        "processor_identity": PROCESSOR,
        "namespace": "default",
    }
    return chunk_key(**(facts | changes))


def test_one_key_for_every_form_of_the_same_pixels() -> None:
    image = Image.fromarray(PIXELS)
    forms: list[Any] = [PIXELS, image, encode(image, "PNG"), encode(image, "BMP"), np.asfortranarray(PIXELS)]
    assert len({key_of(decode_image(form)) for form in forms}) == 1


def test_fingerprint_is_blake3_over_header_and_pixels() -> None:
    expected = blake3(b"image |u1 [30, 100, 3]\n" + PIXELS.tobytes()).hexdigest()
    assert fingerprint_image(PIXELS) == expected


def test_memory_layout_does_not_count() -> None:
    view = np.repeat(PIXELS, 2, axis=1)[:, ::2]
    assert not view.flags.c_contiguous
    assert fingerprint_image(view) == fingerprint_image(np.asfortranarray(PIXELS)) == fingerprint_image(PIXELS)


def test_shape_counts_even_with_the_same_bytes() -> None:
    assert fingerprint_image(PIXELS) != fingerprint_image(PIXELS.reshape(100, 30, 3))


def test_dtype_counts_even_with_the_same_bytes() -> None:
    assert fingerprint_image(PIXELS) != fingerprint_image(PIXELS.view(np.int8))


def test_an_image_is_not_a_clip_of_one_frame() -> None:
    assert fingerprint_image(PIXELS[None]) != fingerprint_frames(PIXELS[None], ())


@given(
    place=st.tuples(st.integers(0, 29), st.integers(0, 99), st.integers(0, 2)),
    flip=st.integers(1, 255),
)
def test_one_changed_value_gives_another_fingerprint(place: tuple[int, int, int], flip: int) -> None:
    changed = PIXELS.copy()
    changed[place] ^= flip
    assert fingerprint_image(changed) != fingerprint_image(PIXELS)


@given(hnp.arrays(np.uint8, (2, 3, 2, 3)), hnp.arrays(np.uint8, (2, 3, 2, 3)))
def test_frames_are_told_apart_by_their_pixels(one: Pixels, other: Pixels) -> None:
    same = fingerprint_frames(one, (0.0, 0.5)) == fingerprint_frames(other, (0.0, 0.5))
    assert same == np.array_equal(one, other)


@pytest.mark.parametrize("timestamps", [(0.0, 0.5000001), (0.1, 0.5), (0.0, 1.0)])
def test_timestamps_count(timestamps: tuple[float, ...]) -> None:
    frames = np.stack([PIXELS, PIXELS])
    assert fingerprint_frames(frames, timestamps) != fingerprint_frames(frames, (0.0, 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "frames"},
        {"pixels_digest": fingerprint_image(PIXELS[::-1])},
        {"shape": (100, 30, 3)},
        {"timestamps": (0.0,)},
        {"namespace": "other"},
        {"layout_digest": fingerprint_layout((7, 8, 9), LAYOUT[1])},
        {"layout_digest": fingerprint_layout(LAYOUT[0], LAYOUT[1] + 1)},
        {"processor_identity": PROCESSOR | {"image": {"max_pixels": 1001}}},
        {"processor_identity": PROCESSOR | {"picture": "ac"}},
        {"model_identity": MODEL | {"config": {"rms_norm_eps": 1e-5}}},
        {"model_identity": MODEL | {"weights": "abd"}},
        {"model_identity": MODEL | {"adapters": ["lora"]}},
        {"model_identity": PROCESSOR, "processor_identity": MODEL},
    ],
    ids=lambda change: "+".join(change),
)
def test_every_fact_changes_the_key(change: dict[str, Any]) -> None:
    changed, plain = key_of(**change), key_of()
    assert changed.digest != plain.digest
    assert changed.material != plain.material


def test_order_of_facts_and_kind_of_sequence_do_not_count() -> None:
    reversed_model = dict(reversed(MODEL.items()))
    assert key_of(model_identity=reversed_model, shape=list(np.array(PIXELS.shape))) == key_of()


def test_key_material_says_every_fact() -> None:
    key = key_of(timestamps=np.array([0.0, 0.5]))
    material = json.loads(key.material)
    assert isinstance(key, Key)
    assert key.digest == blake3(key.material.encode()).digest()
    assert material["timestamps"] == [0.0, 0.5]
    assert material["shape"] == [30, 100, 3]
    assert material["model"] == MODEL
    assert material["processor"] == PROCESSOR


def test_identity_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        key_of(model_identity={"weights": PIXELS})
