"""Frames: gathering pictures, checking timestamps, padding to the encoder's temporal patch."""

from typing import Any

import numpy as np
import pytest
from pictures import encode, noise
from PIL import Image

from kamera_agent.errors import VideoError
from kamera_agent.vision.frames import Frames, pad_to_multiple, stack_frames
from kamera_agent.vision.image import Pixels

CLIP = noise(5, 7, 9, 3)


def png(pixels: Pixels) -> bytes:
    return encode(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize(
    "frames",
    [
        CLIP.copy(),
        list(CLIP),
        tuple(Image.fromarray(frame) for frame in CLIP),
        [png(frame) for frame in CLIP],
        (frame for frame in CLIP),
        [CLIP[0], Image.fromarray(CLIP[1]), png(CLIP[2]), CLIP[3], CLIP[4]],
    ],
    ids=["array", "list", "pil", "png", "generator", "mixed"],
)
def test_every_form_gives_the_same_frames(frames: Any) -> None:
    stacked = stack_frames(frames)
    np.testing.assert_array_equal(stacked.pixels, CLIP)
    assert stacked.timestamps == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert stacked.pixels.flags.c_contiguous


def test_array_is_copied() -> None:
    array = CLIP.copy()
    stacked = stack_frames(array)
    array[...] = 0
    np.testing.assert_array_equal(stacked.pixels, CLIP)


def test_given_timestamps_are_kept_as_floats() -> None:
    stacked = stack_frames(CLIP, np.array([-0.0, 1, 2, 3.25, 10]))
    assert stacked.timestamps == (0.0, 1.0, 2.0, 3.25, 10.0)
    assert all(type(time) is float for time in stacked.timestamps)
    assert str(stacked.timestamps[0]) == "0.0"


def test_frames_pass_through_and_can_be_retimed() -> None:
    frames = Frames(CLIP, (0.0, 1.0, 2.0, 3.0, 4.0))
    assert stack_frames(frames) is frames
    assert stack_frames(frames, [1, 2, 3, 4, 5]).timestamps == (1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        (CLIP[:0], "no pixels"),
        (CLIP.astype(np.float32), "float32"),
        (CLIP[0], r"\[7, 9, 3\]"),
        (CLIP[..., :2], r"\[5, 7, 9, 2\]"),
        ([CLIP[0], CLIP[0].astype(np.float64)], "frame 1: .*float64"),
        ([CLIP[0], CLIP[0, :6]], "frame 1 is 9x6, but frame 0 is 9x7"),
        ([CLIP[0], b"no picture"], "frame 1: not an image"),
        ("clip.mp4", "sample_fps"),
        (b"bytes", "sample_fps"),
        (Image.new("RGB", (4, 4)), "a single Image"),
        (None, "NoneType"),
    ],
)
def test_unusable_frames_are_explained(frames: Any, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        stack_frames(frames)


@pytest.mark.parametrize(
    ("timestamps", "message"),
    [
        ((0.0, 0.5), "2 timestamps for 5 frames"),
        ((0.0, 1.0, 1.0, 2.0, 3.0), r"timestamp 2 \(1.0 s\) is not later"),
        ((0.0, 1.0, 0.5, 2.0, 3.0), r"timestamp 2 \(0.5 s\) is not later"),
        ((0.0, 1.0, 2.0, 3.0, float("inf")), "timestamp 4 is inf"),
        ((0.0, 1.0, 2.0, 3.0, 10**400), "too large"),
        ((float("nan"), 1.0, 2.0, 3.0, 4.0), "timestamp 0 is nan"),
        (("a", "b", "c", "d", "e"), "number of seconds"),
        (7.0, "number of seconds"),
    ],
)
def test_unusable_timestamps_are_explained(timestamps: Any, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        stack_frames(CLIP, timestamps)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
@pytest.mark.parametrize("temporal_patch", [1, 2, 3, 4])
def test_padding_repeats_the_last_frame(num_frames: int, temporal_patch: int) -> None:
    padded = pad_to_multiple(CLIP[:num_frames], temporal_patch)
    expected = [CLIP[min(i, num_frames - 1)] for i in range(len(padded))]
    assert len(padded) % temporal_patch == 0
    assert 0 <= len(padded) - num_frames < temporal_patch
    np.testing.assert_array_equal(padded, expected)
