"""Frames of one clip: their pixels and timestamps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from reprlib import repr as short

import numpy as np
import numpy.typing as npt
from PIL import Image

from kamera_agent.errors import ImageError, VideoError
from kamera_agent.vision.image import ImageSource, Pixels, decode_image

# The rate at which the Qwen families sample clips, and so the spacing they were trained on.
DEFAULT_FPS = 2.0

# Most of these are iterable, but none is a list of pictures.
ONE_PICTURE = (str, bytes, bytearray, memoryview, Image.Image)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Frames of one size, in the order in which they are shown.

    pixels: [N, H, W, 3] uint8 RGB, N >= 1.
    timestamps: N finite seconds, each later than the one before.

    Raises VideoError when either is malformed, or their numbers differ.
    """

    pixels: Pixels
    timestamps: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, np.ndarray):
            raise VideoError(f"frames are a {type(self.pixels).__name__}; pass an array, uint8 [N, H, W, 3] RGB")
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4 or self.pixels.shape[3] != 3:
            form = f"{self.pixels.dtype} {list(self.pixels.shape)}"
            raise VideoError(f"frames are {form}; they must be uint8 [N, H, W, 3] RGB")
        if self.pixels.size == 0:
            raise VideoError(f"frames of shape {list(self.pixels.shape)} have no pixels")
        if not isinstance(self.timestamps, Sequence):
            raise VideoError(f"timestamps are {short(self.timestamps)}; pass a tuple of seconds, one per frame")
        if len(self.timestamps) != len(self.pixels):
            raise VideoError(f"{len(self.timestamps)} timestamps for {len(self.pixels)} frames; pass one per frame")
        _check_timestamps(self.timestamps)


def _check_timestamps(timestamps: Sequence[float]) -> None:
    for i, time in enumerate(timestamps):
        if not isinstance(time, Real) or not math.isfinite(time):
            raise VideoError(f"timestamp {i} is {short(time)}; pass finite seconds")
        if i and time <= timestamps[i - 1]:
            raise VideoError(
                f"timestamp {i} ({time} s) is not later than the one before ({timestamps[i - 1]} s); sort the frames"
            )


def stack_frames(
    frames: Frames | Pixels | Iterable[ImageSource],
    timestamps: Iterable[float] | None = None,
    fps: float = DEFAULT_FPS,
) -> Frames:
    """Convert frames in any accepted form to Frames.

    frames: Frames; array [N, H, W, 3] uint8 RGB; or pictures that decode_image accepts, all of one size.
    timestamps: seconds, one per frame. None keeps the timestamps of Frames; other forms are spaced
        1 / fps seconds apart, from 0.

    The result owns its memory, except that the pixels of Frames are not copied.
    Raises VideoError when a frame cannot be decoded, or the timestamps do not match the frames.
    """
    if isinstance(frames, Frames):
        return frames if timestamps is None else Frames(frames.pixels, _seconds(timestamps))
    pixels = _copy_array(frames) if isinstance(frames, np.ndarray) else _decode_all(frames)
    if timestamps is None:
        timestamps = [i / fps for i in range(len(pixels))]
    return Frames(pixels, _seconds(timestamps))


def _seconds(timestamps: Iterable[float]) -> tuple[float, ...]:
    try:
        # Adding 0.0 turns -0.0 into 0.0: they are the same time, but would have different fingerprints.
        return tuple(float(time) + 0.0 for time in timestamps)
    except (TypeError, ValueError, OverflowError) as error:
        raise VideoError(f"timestamps cannot be read: {error}; pass one number of seconds per frame") from error


def _copy_array(array: npt.NDArray[np.generic]) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 4:
        raise VideoError(f"frames are {array.dtype} {list(array.shape)}; pass uint8 [N, H, W, 3] RGB")
    return np.array(array, dtype=np.uint8, order="C", subok=False)


def _decode_all(frames: Iterable[ImageSource]) -> Pixels:
    if isinstance(frames, ONE_PICTURE) or not isinstance(frames, Iterable):
        hint = "pass a list of pictures, or read a clip with sample_fps"
        raise VideoError(f"frames is a single {type(frames).__name__}; {hint}")
    sources = list(frames)
    return join_pixels((_decode_frame(i, source) for i, source in enumerate(sources)), len(sources))


def _decode_frame(i: int, frame: ImageSource) -> Pixels:
    try:
        return decode_image(frame)
    except ImageError as error:
        raise VideoError(f"frame {i}: {error}") from error


def join_pixels(frames: Iterable[Pixels], num_frames: int) -> Pixels:
    """Copy N frames [H, W, 3] into one array [N, H, W, 3]. An iterator need not hold them all at once.

    Raises VideoError if there are none, or their sizes differ.
    """
    pixels: Pixels | None = None
    for i, frame in enumerate(frames):
        if pixels is None:
            pixels = np.empty((num_frames, *frame.shape), np.uint8)
        (height, width), (first_height, first_width) = frame.shape[:2], pixels.shape[1:3]
        if (height, width) != (first_height, first_width):
            sizes = f"{width}x{height}, but frame 0 is {first_width}x{first_height}"
            raise VideoError(f"frame {i} is {sizes}; resize all frames to one size")
        pixels[i] = frame
    if pixels is None:
        raise VideoError("there are no frames; pass at least one")
    return pixels


def pad_to_multiple(pixels: Pixels, temporal_patch: int) -> Pixels:
    """Repeat the last frame until the count is a multiple of temporal_patch, as the Qwen video processors do.

    pixels: [N, H, W, 3], not modified. temporal_patch: frames that the encoder joins into one, >= 1.

    Returns [N', H, W, 3]: pixels itself when N is already a multiple, else a new array.
    """
    missing = -len(pixels) % temporal_patch
    if missing == 0:
        return pixels
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])
