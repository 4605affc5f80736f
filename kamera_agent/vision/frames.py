"""Frames of one clip: pixels and the second each was seen at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from kamera_agent.errors import ImageError, VideoError
from kamera_agent.vision.image import ImageSource, Pixels, decode_image

# The rate the Qwen families sample clips at, and so the spacing they were trained on.
DEFAULT_FPS = 2.0

# Iterable, most of them, and yet no list of pictures.
ONE_PICTURE = (str, bytes, bytearray, memoryview, Image.Image)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames of one size in the order they were seen.

    pixels: [N, H, W, 3] uint8 RGB, N >= 1.
    timestamps: N seconds, finite, each later than the one before.

    Raises VideoError when the two do not fit.
    """

    pixels: Pixels
    timestamps: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            form = f"{self.pixels.dtype} {list(self.pixels.shape)}"
            raise VideoError(f"frames are {form}; they must be uint8 [N, H, W, 3] RGB")
        if self.pixels.size == 0:
            raise VideoError(f"frames of shape {list(self.pixels.shape)} hold no pixels")
        if len(self.timestamps) != len(self.pixels):
            raise VideoError(f"{len(self.timestamps)} timestamps for {len(self.pixels)} frames; pass one per frame")
        _check_timestamps(self.timestamps)


def _check_timestamps(timestamps: Sequence[float]) -> None:
    for i, time in enumerate(timestamps):
        if not math.isfinite(time):
            raise VideoError(f"timestamp {i} is {time}; timestamps are finite seconds")
        if i and time <= timestamps[i - 1]:
            raise VideoError(f"timestamp {i} ({time} s) is not later than the one before ({timestamps[i - 1]} s)")


def stack_frames(frames: Frames | Pixels | Iterable[ImageSource], timestamps: Iterable[float] | None = None) -> Frames:
    """Gather frames in any accepted form.

    frames: Frames; array [N, H, W, 3] uint8 RGB; or pictures that decode_image takes, all of one size.
    timestamps: seconds, one per frame. None keeps those of Frames, else spaces frames half a second
        apart from 0, as if sampled at DEFAULT_FPS.

    The result owns its memory, except that Frames are passed through.
    Raises VideoError when a frame cannot be used or the timestamps do not fit.
    """
    if isinstance(frames, Frames):
        return frames if timestamps is None else Frames(frames.pixels, _seconds(timestamps))
    pixels = _copy_array(frames) if isinstance(frames, np.ndarray) else join_pixels(_decode_all(frames))
    if timestamps is None:
        timestamps = [i / DEFAULT_FPS for i in range(len(pixels))]
    return Frames(pixels, _seconds(timestamps))


def _seconds(timestamps: Iterable[float]) -> tuple[float, ...]:
    try:
        # Adding 0.0 turns -0.0, which is the same moment with other bits, into 0.0.
        return tuple(float(time) + 0.0 for time in timestamps)
    except (TypeError, ValueError) as error:
        raise VideoError(f"timestamps cannot be read: {error}; pass one number of seconds per frame") from error


def _copy_array(array: npt.NDArray[np.generic]) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 4:
        raise VideoError(f"frames are {array.dtype} {list(array.shape)}; pass uint8 [N, H, W, 3] RGB")
    return np.array(array, dtype=np.uint8, order="C", subok=False)


def _decode_all(frames: Iterable[ImageSource]) -> list[Pixels]:
    if isinstance(frames, ONE_PICTURE) or not isinstance(frames, Iterable):
        hint = "pass a list of pictures, or read a clip with sample_fps"
        raise VideoError(f"frames are one {type(frames).__name__}; {hint}")
    return [_decode_frame(i, frame) for i, frame in enumerate(frames)]


def _decode_frame(i: int, frame: ImageSource) -> Pixels:
    try:
        return decode_image(frame)
    except ImageError as error:
        raise VideoError(f"frame {i}: {error}") from error


def join_pixels(frames: Sequence[Pixels]) -> Pixels:
    """Copy frames [H, W, 3] into one array [N, H, W, 3]. Raises VideoError for none, or for several sizes."""
    if not frames:
        raise VideoError("there are no frames; pass at least one")
    for i, frame in enumerate(frames):
        if frame.shape != frames[0].shape:
            sizes = f"{list(frame.shape[:2])}, frame 0 is {list(frames[0].shape[:2])}"
            raise VideoError(f"frame {i} is [H, W] {sizes}; resize them to one size")
    return np.stack(frames)


def pad_to_multiple(pixels: Pixels, temporal_patch: int) -> Pixels:
    """Repeat the last frame until the count is a multiple of temporal_patch, as the Qwen video processors do.

    pixels: [N, H, W, 3], unchanged. temporal_patch: frames that the encoder joins into one, >= 1.

    Returns [N', H, W, 3]: pixels itself when nothing is missing, else a new array.
    """
    missing = -len(pixels) % temporal_patch
    if missing == 0:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
