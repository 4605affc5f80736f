"""A video file read once, front to back, with OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from kamera_agent.closing import Closing
from kamera_agent.errors import VideoError
from kamera_agent.vision.image import Pixels

SKETCH_SIZE = (64, 36)


class Clip(Closing):
    """An open clip. times() steps through its frames; pixels() gives the one it stands on.

    Frames stepped over are never copied out of the decoder. A clip that was cut short ends where its
    data ends. OpenCV and FFmpeg write their own remarks about damaged files to stderr.

    duration_s: length in seconds as the container states it; 0.0 where it does not.

    Raises VideoError when the file is missing or is no video.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = repr(os.fspath(path))
        # Checked first, as FFmpeg would take a URL or a numbered pattern for a name as well.
        if not os.path.isfile(path):
            raise VideoError(f"no video file at {self._name}; pass the path of a local file")
        self._capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise VideoError(f"{self._name} is not a video that OpenCV can read; check it or convert it to MP4")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._frame_s = 1.0 / fps if fps > 0 else 0.0
        self.duration_s = max(self._capture.get(cv2.CAP_PROP_FRAME_COUNT) * self._frame_s, 0.0)

    def close(self) -> None:
        """Release the decoder. Idempotent."""
        self._capture.release()

    def times(self) -> Iterator[float]:
        """Step through the frames and yield the second of each by the container's clock, strictly increasing.

        Where that clock is silent or runs backwards, the frame rate carries on from the frame before.
        Raises VideoError when there is neither, or no frame at all.
        """
        time_s, num_frames = 0.0, 0
        while self._capture.grab():
            told_s = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6)
            time_s = self._next_time(time_s, told_s) if num_frames else max(told_s, 0.0)
            num_frames += 1
            yield time_s
        if num_frames == 0:
            raise VideoError(f"{self._name} holds no frames")

    def _next_time(self, time_s: float, told_s: float) -> float:
        if told_s > time_s:
            return told_s
        if self._frame_s == 0.0:
            hint = "decode it yourself and pass frames with timestamps"
            raise VideoError(f"{self._name} has neither timestamps nor a frame rate; {hint}")
        return round(time_s + self._frame_s, 6)

    def pixels(self) -> Pixels:
        """The present frame, upright: [H, W, 3] uint8 RGB, memory of its own. VideoError if damaged."""
        decoded, bgr = self._capture.retrieve()
        if not decoded:
            raise VideoError(f"a frame of {self._name} cannot be decoded; the file may be damaged")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def sketch(pixels: Pixels) -> npt.NDArray[np.int16]:
    """A small grey picture [36, 64] of pixels [H, W, 3]: 0..255, as int16 so that two can be subtracted."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, SKETCH_SIZE, interpolation=cv2.INTER_AREA), dtype=np.int16)
