"""A video file read once, front to back, with OpenCV."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from kamera_agent.closing import Closing
from kamera_agent.errors import VideoError
from kamera_agent.vision.image import Pixels

SKETCH_SIZE = (64, 36)

# The most frames that a decoder of H.264 or HEVC holds back to bring them into order.
MAX_DELAY = 16


class Clip(Closing):
    """An open clip. times() steps through its frames; pixels() returns the current one.

    Frames that are stepped over are never copied out of the decoder. A truncated clip ends where its
    data ends. OpenCV and FFmpeg print their own messages about damaged files to stderr.

    duration_s: length in seconds as the container states it; 0.0 if it does not.

    Raises VideoError when the file is missing or is not a video.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        # Checked first: FFmpeg also accepts a URL or a numbered pattern as a name.
        if not os.path.isfile(path):
            raise VideoError(f"no video file at {self._path!r}; pass the path of a local file")
        self._capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise VideoError(f"{self._path!r} is not a video that OpenCV can read; check it or convert it to MP4")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._frame_s = 1.0 / fps if fps > 0 else 0.0
        self.duration_s = max(self._capture.get(cv2.CAP_PROP_FRAME_COUNT) * self._frame_s, 0.0)
        self._checked = False
        self._delay_s = 0.0
        self._decode_times: Iterator[float] | None = None

    def close(self) -> None:
        """Release the decoder. Idempotent."""
        self._capture.release()

    def times(self) -> Iterator[float]:
        """Step through the frames and yield the second at which each is shown, strictly increasing.

        The container's presentation times are used, or its decode times in order where it has no others.
        Where its clock is silent or repeats itself, the frame rate continues from the frame before.
        Raises VideoError when the clip has neither a clock nor a frame rate, or no frames.
        """
        time_s, num_frames = 0.0, 0
        while self._capture.grab():
            shown_s = self._shown_s(num_frames)
            time_s = self._next_time(time_s, shown_s) if num_frames else max(shown_s, 0.0)
            num_frames += 1
            yield time_s
        if num_frames == 0:
            raise VideoError(f"{self._path!r} holds no frames")

    def _next_time(self, time_s: float, shown_s: float) -> float:
        if shown_s > time_s:
            return shown_s
        if self._frame_s == 0.0:
            hint = "decode it yourself and pass frames with timestamps"
            raise VideoError(f"{self._path!r} has neither timestamps nor a frame rate; {hint}")
        return round(time_s + self._frame_s, 6)

    def _shown_s(self, number: int) -> float:
        """The time of the current frame, the number-th shown: its stamp, unless that is a decode time."""
        stamp_s = _stamp_s(self._capture)
        # Both need a decoder that holds frames back, so other clips are spared the second look.
        late, reordered = number == 0 and stamp_s > 0, self._capture.get(cv2.CAP_PROP_FRAME_TYPE) == ord("B")
        if not self._checked and (late or reordered):
            self._check_stamps(number, stamp_s)
        if self._decode_times is not None:
            stamp_s = next(self._decode_times, 0.0)
        return round(stamp_s - self._delay_s, 6)

    def _check_stamps(self, number: int, stamp_s: float) -> None:
        """Find out whether stamps are decode times, and the decoder's delay.

        Presentation times of reordered packets jump back and forth; decode times increase. OpenCV gives a
        frame the decode time of its own packet (MP4), which runs backwards, or of the packet that pushed the
        frame out of the decoder (AVI), which is late by the delay. Encoders stamp packet i + delay with the
        time frame i is shown at, so the n-th frame takes the n-th decode time after the delay.
        """
        with closing(_packet_stamps(self._path)) as packets:
            stamps = list(islice(packets, number + MAX_DELAY + 1))
            delay = stamps.index(stamp_s) - number if stamp_s in stamps else 0
            self._checked = number > 0 or delay > 0
            if delay <= 0 or any(later <= earlier for earlier, later in pairwise(stamps)):
                return
            self._delay_s = stamps[delay] - stamps[0]
            if number > 0:
                self._decode_times = iter([*stamps[number + delay :], *packets])

    def pixels(self) -> Pixels:
        """The current frame, upright: [H, W, 3] uint8 RGB, in memory of its own. VideoError if damaged."""
        decoded, bgr = self._capture.retrieve()
        if not decoded:
            raise VideoError(f"a frame of {self._path!r} cannot be decoded; the file may be damaged")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _stamp_s(capture: cv2.VideoCapture) -> float:
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6)


def _packet_stamps(path: str) -> Generator[float, None, None]:
    """The stamp of each packet in seconds, in decode order; nothing where OpenCV cannot read without decoding."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        capture.set(cv2.CAP_PROP_FORMAT, -1)
        while capture.get(cv2.CAP_PROP_FORMAT) == -1 and capture.grab():
            yield _stamp_s(capture)
    finally:
        capture.release()


def sketch(pixels: Pixels) -> npt.NDArray[np.int16]:
    """A small grey picture [36, 64] of pixels [H, W, 3]: 0..255, as int16 so that two can be subtracted."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, SKETCH_SIZE, interpolation=cv2.INTER_AREA), dtype=np.int16)
