"""Which frames of a clip are kept: some per second, or one per scene."""

from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import closing

import numpy as np

from kamera_agent.errors import SettingError
from kamera_agent.vision.clip import Clip, sketch
from kamera_agent.vision.frames import DEFAULT_FPS, Frames, join_pixels
from kamera_agent.vision.progress import with_progress

MAX_FRAMES = 64

# Containers round times to a millisecond, so a frame may come this much before its due time.
ROUNDING_S = 5e-4


def sample_fps(path: str | os.PathLike[str], fps: float = DEFAULT_FPS, max_frames: int = MAX_FRAMES) -> Frames:
    """Keep the first frame of every 1/fps seconds.

    fps: frames kept per second of the clip; a clip with fewer keeps all it has.
    max_frames: most frames kept. A longer clip is sampled more thinly, so that they span all of it.

    Raises SettingError for an option outside its range, VideoError for a file that cannot be read.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise SettingError(f"fps is {fps}; it must be above 0")
    _check_max_frames(max_frames)
    with Clip(path) as clip:
        if clip.duration_s > 0:
            fps = min(fps, max_frames / clip.duration_s)
        return _keep(clip, _times_at(clip, fps), max_frames)


def sample_scenes(path: str | os.PathLike[str], threshold: float = 10.0, max_frames: int = MAX_FRAMES) -> Frames:
    """Keep the first frame, then each that differs enough from the one kept last.

    threshold: mean absolute difference of two frames, shrunk to small grey pictures, at which the later
        one is kept; in grey levels, above 0 and at most 255. Noise and small movements stay below 10, cuts
        lie well above.
    max_frames: most frames kept; reading ends there, and the last timestamp says how far it came.

    Raises SettingError for an option outside its range, VideoError for a file that cannot be read.
    """
    if not 0 < threshold <= 255:
        raise SettingError(f"threshold is {threshold}; it must be above 0 and at most 255 grey levels")
    _check_max_frames(max_frames)
    with Clip(path) as clip:
        return _keep(clip, _times_of_change(clip, threshold), max_frames)


def _check_max_frames(max_frames: int) -> None:
    if max_frames < 1:
        raise SettingError(f"max_frames is {max_frames}; it must be at least 1")


def _times_at(clip: Clip, fps: float) -> Generator[float, None, None]:
    start_s, last_slot = 0.0, -1
    for time_s in _watched(clip):
        if last_slot < 0:
            start_s = time_s
        slot = math.floor((time_s - start_s + ROUNDING_S) * fps)
        if slot > last_slot:
            last_slot = slot
            yield time_s


def _times_of_change(clip: Clip, threshold: float) -> Generator[float, None, None]:
    kept = None
    for time_s in _watched(clip):
        present = sketch(clip.pixels())
        if kept is None or np.abs(present - kept).mean() >= threshold:
            kept = present
            yield time_s


def _watched(clip: Clip) -> Generator[float, None, None]:
    return with_progress(clip.times(), clip.duration_s, "reading clip")


def _keep(clip: Clip, times: Generator[float, None, None], max_frames: int) -> Frames:
    pixels, timestamps = [], []
    # Closed at once even after an error, so that no progress bar lives on beside the message.
    with closing(times):
        for time_s in times:
            pixels.append(clip.pixels())
            timestamps.append(time_s)
            if len(pixels) == max_frames:
                break
    return Frames(join_pixels(pixels), tuple(timestamps))
