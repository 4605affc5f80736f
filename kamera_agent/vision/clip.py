"""A video file read once, front to back, with OpenCV."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from kamera_agent.closing import Closing
from kamera_agent.errors import VideoError
from kamera_agent.vision.image import Pixels, short_path

SKETCH_SIZE = (64, 36)

HEAD_BYTES = 4096
# What a file in UTF-8 is made of: everything but control characters, those of blanks and lines excepted.
TEXT = frozenset([*b"\t\n\f\r\x1b", *range(32, 127), *range(128, 256)])
# The beginnings of playlists, after which there may be anything, and words of manifests.
PLAYLISTS = (b"#EXTM3U", b"\xef\xbb\xbf#EXTM3U", b"ffconcat")
MANIFESTS = (b"<MPD", b"c=IN IP", b"<CompositionPlaylist")

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
        if not isinstance(path, (str, os.PathLike)):
            raise VideoError(f"a {type(path).__name__} is no path of a video; pass a str or a Path")
        self._path = os.fspath(path)
        # Checked first: FFmpeg also accepts a URL or a numbered pattern as a name.
        if not os.path.isfile(path):
            raise VideoError(f"no video file at {short_path(path)}; pass the path of a local file")
        if _is_text(path):
            raise VideoError(
                f"{self._path!r} is not a video but a text, such as a playlist, which may name other files"
            )
        self._capture = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise VideoError(f"{self._path!r} is not a video that OpenCV can read; check it or convert it to MP4")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._frame_s = 1.0 / fps if fps > 0 else 0.0
        self.duration_s = max(self._capture.get(cv2.CAP_PROP_FRAME_COUNT) * self._frame_s, 0.0)
        self._stamp_s = 0.0
        # Frames that the decoder holds back, if stamps are decode times, else 0; None until it is needed.
        self._delay: int | None = None
        self._delay_s = 0.0
        self._decode_times: Iterator[float] | None = None

    def close(self) -> None:
        """Release the decoder. Idempotent."""
        self._capture.release()

    def times(self) -> Iterator[float]:
        """Step through the frames and yield the second at which each is shown, strictly increasing.

        The times are the container's presentation times, or its decode times in order if it has no others.
        Where stamps are missing or repeated, the frame rate continues from the frame before.
        Raises VideoError when the clip has neither timestamps nor a frame rate, or no frames.
        """
        time_s, num_frames = 0.0, 0
        while self._capture.grab():
            shown_s = self._shown_s(num_frames)
            time_s = self._next_time(time_s, shown_s) if num_frames else max(shown_s, 0.0)
            num_frames += 1
            yield round(time_s, 6)
        if num_frames == 0:
            raise VideoError(f"{self._path!r} holds no frames")

    def _next_time(self, time_s: float, shown_s: float) -> float:
        if shown_s > round(time_s, 6):
            return shown_s
        if self._frame_s == 0.0:
            hint = "decode it yourself and pass frames with timestamps"
            raise VideoError(f"{self._path!r} has neither timestamps nor a frame rate; {hint}")
        return time_s + self._frame_s

    def _shown_s(self, number: int) -> float:
        """When the current frame is shown: its stamp, corrected if that is a decode time. number: from 0.

        A frame without a presentation time is stamped with a decode time: in MP4 that of its own packet, which
        runs backwards where frames are reordered; in AVI that of the packet that pushed the frame out of the
        decoder, which is late by the decoder's delay. Packet n + delay is decoded when frame n is shown.
        """
        before_s, self._stamp_s = self._stamp_s, _stamp_s(self._capture)
        late, reordered = number == 0 and self._stamp_s > 0, self._capture.get(cv2.CAP_PROP_FRAME_TYPE) == ord("B")
        if self._delay is None and (late or reordered):
            self._find_delay(number)
        # A stamp of 0 is a missing one: the last frames of an AVI leave the decoder without a packet.
        if self._delay and self._decode_times is None and 0 < self._stamp_s < before_s:
            self._decode_times = iter(_packet_stamps(self._path)[number + self._delay :])
        shown_s = self._stamp_s if self._decode_times is None else next(self._decode_times, 0.0)
        return round(shown_s - self._delay_s, 6)

    def _find_delay(self, number: int) -> None:
        """Count the frames that the decoder holds back; 0 if the stamps are presentation times."""
        stamps = _packet_stamps(self._path, number + MAX_DELAY + 1)
        delay = stamps.index(self._stamp_s) - number if self._stamp_s in stamps else 0
        # In decode order, presentation times of reordered frames jump back and forth; decode times increase.
        if delay > 0 and all(later > earlier for earlier, later in pairwise(stamps)):
            self._delay, self._delay_s = delay, stamps[delay] - stamps[0]
        else:
            self._delay = 0

    def pixels(self) -> Pixels:
        """The current frame, upright: [H, W, 3] uint8 RGB, in memory of its own. VideoError if damaged."""
        decoded, bgr = self._capture.retrieve()
        if not decoded:
            raise VideoError(f"a frame of {self._path!r} cannot be decoded; the file may be damaged")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _is_text(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a text does, or as the playlists and manifests that FFmpeg follows.

    False for a file that cannot be read.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return False
    return (
        (head != b"" and TEXT.issuperset(head)) or head.startswith(PLAYLISTS) or any(mark in head for mark in MANIFESTS)
    )


def _stamp_s(capture: cv2.VideoCapture) -> float:
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6)


def _packet_stamps(path: str, most: int = sys.maxsize) -> list[float]:
    """Stamps of the first packets in seconds, in decode order; none where OpenCV cannot read without decoding."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    capture.set(cv2.CAP_PROP_FORMAT, -1)
    stamps: list[float] = []
    while capture.get(cv2.CAP_PROP_FORMAT) == -1 and len(stamps) < most and capture.grab():
        stamps.append(_stamp_s(capture))
    capture.release()
    return stamps


def sketch(pixels: Pixels) -> npt.NDArray[np.int16]:
    """A small grey picture [36, 64] of pixels [H, W, 3]: 0..255, as int16 so that two can be subtracted."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, SKETCH_SIZE, interpolation=cv2.INTER_AREA), dtype=np.int16)
