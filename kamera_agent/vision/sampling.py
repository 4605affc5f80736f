"""Choosing frames of a clip: some per second, or one per scene."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from kamera_agent.errors import SettingError
from kamera_agent.options import real, whole
from kamera_agent.progress import with_progress
from kamera_agent.vision.clip import Clip, sketch
from kamera_agent.vision.frames import DEFAULT_FPS, Frames, join_pixels, stack_frames
from kamera_agent.vision.image import Pixels

MAX_FRAMES = 64
# Frames of a clip per chunk: Qwen models join two frames into one time step.
GROUP = 2

# Containers round times to a millisecond, so the frame that is due may be stamped this much too early.
ROUNDING_S = 5e-4


def sample_fps(path: str | os.PathLike[str], fps: float = DEFAULT_FPS, max_frames: int = MAX_FRAMES) -> Frames:
    """Keep the first frame of every interval of 1/fps seconds.

    fps: frames to keep per second of the clip. Of a clip with a lower rate, all frames are kept.
    max_frames: the most frames to keep. The rate is lowered for a longer clip, to cover it to its end. If the container
        states no length, or too short a one, the rate is halved whenever that many frames are kept.

    Raises SettingError for an option outside its range, VideoError for a file that cannot be read.
    """
    _check_fps(fps)
    _check_max_frames(max_frames)
    with Clip(path) as clip:
        if clip.duration_s > 0:
            fps = min(fps, max_frames / clip.duration_s)
        return _first_of_intervals(clip, fps, max_frames)


def sample_groups(path: str | os.PathLike[str], fps: float = DEFAULT_FPS, group: int = GROUP) -> Iterator[Frames]:
    """The frames that sample_fps keeps of a short clip, in groups, to the end of a clip of any length.

    group: frames per group; the last one may have fewer. Only one group is in memory at a time.
    Raises as sample_fps.
    """
    _check_fps(fps)
    kept: list[tuple[Pixels, float]] = []
    start_s, last = 0.0, -1
    with Clip(path) as clip, closing(_watched(clip)) as times:
        for time_s in times:
            start_s = time_s if last < 0 else start_s
            interval = _interval(time_s - start_s, fps)
            if interval > last:
                kept.append((clip.pixels(), time_s))
                last = interval
            if len(kept) == group:
                yield _join(kept)
                kept = []
    if kept:
        yield _join(kept)


def groups_of(frames: Frames, group: int = GROUP) -> Iterator[Frames]:
    """Frames in groups of so many; the last one may have fewer."""
    for first in range(0, len(frames.timestamps), group):
        part = slice(first, first + group)
        yield Frames(frames.pixels[part], frames.timestamps[part])


def take_frames(source: Any, timestamps: Iterable[float] | None = None, fps: float | None = None) -> Frames:
    """Frames of a clip at a path, by sample_fps, or frames in any form that stack_frames takes.

    timestamps: seconds, one per frame, for frames without timestamps of their own.
    fps: frames to keep per second of a clip, DEFAULT_FPS if None. Other frames it spaces 1/fps seconds apart, from 0.

    Raises SettingError where fps is out of range or given beside timestamps, and VideoError as both functions do.
    """
    is_clip = isinstance(source, (str, os.PathLike))
    if is_clip and timestamps is not None:
        raise SettingError("A clip has timestamps of its own; leave timestamps out, and choose frames with fps.")
    if fps is None:
        return sample_fps(source) if is_clip else stack_frames(source, timestamps)
    if timestamps is not None or isinstance(source, Frames):
        raise SettingError(f"fps={fps} was given for frames with timestamps; leave one of the two out.")
    if is_clip:
        return sample_fps(source, fps)
    _check_fps(fps)
    return stack_frames(source, fps=fps)


def sample_scenes(path: str | os.PathLike[str], threshold: float = 10.0, max_frames: int = MAX_FRAMES) -> Frames:
    """Keep the first frame, then each frame that differs enough from the one kept last.

    threshold: mean absolute difference between a frame and the one kept last at which it is kept,
        measured on small grey copies, in grey levels, above 0 and at most 255. Noise and small movements
        stay below 10; cuts are well above.
    max_frames: the most frames to keep. Reading stops there; the last timestamp shows how far it came.

    Raises SettingError for an option outside its range, VideoError for a file that cannot be read.
    """
    if not 0 < real("threshold", threshold) <= 255:
        raise SettingError(f"threshold is {threshold}; it must be above 0 and at most 255 grey levels")
    _check_max_frames(max_frames)
    with Clip(path) as clip:
        return _keep(clip, _times_of_change(clip, threshold), max_frames)


def _check_fps(fps: float) -> None:
    if not (math.isfinite(real("fps", fps)) and fps > 0):
        raise SettingError(f"fps is {fps}; it must be above 0")


def _check_max_frames(max_frames: int) -> None:
    if whole("max_frames", max_frames) < 1:
        raise SettingError(f"max_frames is {max_frames}; it must be at least 1")


def _first_of_intervals(clip: Clip, fps: float, max_frames: int) -> Frames:
    kept: dict[int, tuple[Pixels, float]] = {}
    # The last frame may be just beyond a stated length. That is no reason to keep half as many.
    most = max_frames + (clip.duration_s > 0)
    start_s: float | None = None
    with closing(_watched(clip)) as times:
        for time_s in times:
            start_s = time_s if start_s is None else start_s
            interval = _interval(time_s - start_s, fps)
            while len(kept) == most and interval not in kept:
                fps, interval = fps / 2, interval // 2
                # Two intervals become one, of which the first frame is kept.
                kept = {number // 2: kept[number] for number in sorted(kept, reverse=True)}
            if interval not in kept:
                kept[interval] = clip.pixels(), time_s
    return _join([kept[number] for number in sorted(kept)[:max_frames]])


def _interval(time_s: float, fps: float) -> int:
    """The number of the interval of 1/fps seconds that a time is in."""
    return math.floor((time_s + ROUNDING_S) * fps)


def _join(kept: Sequence[tuple[Pixels, float]]) -> Frames:
    return Frames(join_pixels((pixels for pixels, _ in kept), len(kept)), tuple(time_s for _, time_s in kept))


def _times_of_change(clip: Clip, threshold: float) -> Generator[float, None, None]:
    kept = None
    for time_s in _watched(clip):
        current = sketch(clip.pixels())
        if kept is None or np.abs(current - kept).mean() >= threshold:
            kept = current
            yield time_s


def _watched(clip: Clip) -> Generator[float, None, None]:
    return with_progress(clip.times(), clip.duration_s, "reading clip")


def _keep(clip: Clip, times: Generator[float, None, None], max_frames: int) -> Frames:
    pixels, timestamps = [], []
    # Closed even after an error, or the progress bar would stay on the screen beside the message.
    with closing(times):
        for time_s in times:
            pixels.append(clip.pixels())
            timestamps.append(time_s)
            if len(pixels) == max_frames:
                break
    return Frames(join_pixels(pixels, len(pixels)), tuple(timestamps))
