"""Reading clips: clock, colours, rotation, and files that are broken in one way or another."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import write_clip

from kamera_agent.errors import VideoError
from kamera_agent.vision.clip import Clip
from kamera_agent.vision.image import Pixels


def read(path: str | Path) -> tuple[list[float], list[Pixels]]:
    with Clip(path) as clip:
        seen = [(time_s, clip.pixels()) for time_s in clip.times()]
    return [time_s for time_s, _ in seen], [pixels for _, pixels in seen]


@pytest.mark.parametrize(("codec", "name"), [("MJPG", "a.avi"), ("mp4v", "a.mp4"), ("VP80", "a.webm")])
@pytest.mark.parametrize("rate", [10.0, 23.976, 29.97, 60.0])
def test_times_come_from_the_container(tmp_path: Path, codec: str, name: str, rate: float) -> None:
    path = write_clip(tmp_path / name, range(0, 200, 10), fps=rate, codec=codec)
    times, frames = read(path)
    # WebM counts whole milliseconds.
    assert times == pytest.approx([i / rate for i in range(20)], abs=1e-3)
    # The codecs are lossy; plain grey is off by a few levels at most.
    assert [float(pixels.mean()) for pixels in frames] == pytest.approx(range(0, 200, 10), abs=4)
    with Clip(path) as clip:
        assert clip.duration_s == pytest.approx(20 / rate, abs=0.01)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n",
        "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n\0",
        "ffconcat version 1.0\nfile '{clip}'\n#\0",
        "<?xml version='1.0'?><!--\0--><MPD profiles='urn:mpeg:dash:profile'><BaseURL>{clip}</BaseURL></MPD>",
        "v=0\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n\0",
        "a page of text",
    ],
    ids=["m3u8", "m3u8 with a zero", "ffconcat", "dash", "sdp", "text"],
)
def test_a_text_that_may_name_other_files_is_no_clip(tmp_path: Path, text: str) -> None:
    clip = write_clip(tmp_path / "secret.mp4", range(0, 200, 10), codec="mp4v")
    (tmp_path / "given.mp4").write_text(text.format(clip=clip), "utf-8")
    with pytest.raises(VideoError, match="is not a video but a text"):
        Clip(tmp_path / "given.mp4")


# OpenCV writes MPEG-2 with two B-frames between every two others, which are decoded before them.
LEVEL_STEP = 12


def write_reordered(path: Path, rate: float) -> Path:
    """Twenty frames, of which most are decoded in another order than they are shown; frame i has level 12·i."""
    return write_clip(path, range(0, 20 * LEVEL_STEP, LEVEL_STEP), fps=rate, codec="mpg2")


def drop_composition_times(path: Path, decode_steps: Sequence[int] | None = None) -> Path:
    """Leave the frames of an MP4 their decode times alone.

    decode_steps: ticks from each decoded frame to the next, in place of the constant ones; the last is repeated.
    """
    data = bytearray(path.read_bytes())
    # The edit list skips the decoder's delay, which only composition times make visible.
    edits = data.index(b"edts")
    data[edits : edits + 4] = b"free"
    offsets = data.index(b"ctts")
    if decode_steps is None:
        data[offsets : offsets + 4] = b"free"
    else:
        # Both tables are runs of (number of frames, ticks), so the one for offsets holds decode steps as well.
        runs = int.from_bytes(data[offsets + 8 : offsets + 12], "big")
        assert len(decode_steps) == runs
        table = np.array([(1, step) for step in decode_steps], dtype=">u4")
        table[-1, 0] = 20 - (runs - 1)
        old = data.index(b"stts")
        data[old : old + 4], data[offsets : offsets + 4] = b"free", b"stts"
        data[offsets + 12 : offsets + 12 + table.nbytes] = table.tobytes()
    path.write_bytes(data)
    return path


def frame_numbers(frames: Sequence[Pixels]) -> list[int]:
    return [round(float(pixels.mean()) / LEVEL_STEP) for pixels in frames]


@pytest.mark.parametrize("rate", [24.0, 25.0, 29.97, 60.0])
@pytest.mark.parametrize("container", ["composition times", "decode times", "late decode times"])
def test_frames_decoded_out_of_order_have_the_times_they_are_shown_at(
    tmp_path: Path, container: str, rate: float
) -> None:
    """1. Reference: a frame's brightness is its number, and its number over the rate its time. 2. Read the clip."""
    path = write_reordered(tmp_path / ("clip.avi" if container == "late decode times" else "clip.mp4"), rate)
    if container == "decode times":
        drop_composition_times(path)
    times, frames = read(path)
    assert frame_numbers(frames) == list(range(20))
    assert times == pytest.approx([i / rate for i in range(20)], abs=1e-4)


def test_a_variable_rate_survives_the_loss_of_composition_times(tmp_path: Path) -> None:
    """1. Reference: frame i is shown at the sum of the steps before it. 2. Read a clip with decode times only.

    The encoder's delay is one frame: packet i + 1 is decoded when frame i is shown. So the clip does not hold
    the time of the last frame, which the mean frame rate supplies.
    """
    path = write_reordered(tmp_path / "clip.mp4", 25.0)
    steps = [512, 1024, 512, 4096, 256, 512, 2048, 512, 512, 1024, 512, 512, 512]
    times, frames = read(drop_composition_times(path, [512, *steps]))
    shown = np.cumsum([0, *steps, *[512] * 5]) / 12800
    assert frame_numbers(frames) == list(range(20))
    assert times[:19] == pytest.approx(shown.tolist(), abs=1e-4)
    assert times[19] > times[18]


def test_colours_are_rgb(tmp_path: Path) -> None:
    pure_red_bgr = np.full((48, 64, 3), (0, 0, 255), dtype=np.uint8)
    _, frames = read(write_clip(tmp_path / "red.avi", [pure_red_bgr]))
    np.testing.assert_allclose(frames[0].mean(axis=(0, 1)), [255, 0, 0], atol=10)


def test_pixels_are_owned(clip: Path) -> None:
    _, frames = read(clip)
    assert frames[0].flags.c_contiguous
    assert not np.shares_memory(frames[0], frames[1])
    assert frames[0].mean() < frames[1].mean() < frames[29].mean()


def test_rotation_of_the_container_is_applied(tmp_path: Path) -> None:
    """1. A wide clip, bright on top. 2. Turn it by 90° in its header. 3. It reads tall, bright right."""
    picture = np.zeros((48, 64, 3), dtype=np.uint8)
    picture[:24] = 200
    path = write_clip(tmp_path / "turned.mp4", [picture], codec="mp4v")
    data = bytearray(path.read_bytes())
    # Track header: 4 bytes of name, 40 of other fields, then a 3x3 matrix of 16.16 and 2.30 numbers.
    matrix = data.index(b"tkhd") + 44
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30], dtype=">i4")
    data[matrix : matrix + 36] = turn.tobytes()
    path.write_bytes(data)
    pixels = read(path)[1][0]
    assert pixels.shape == (64, 48, 3)
    assert pixels[:, 30:].mean() > 180
    assert pixels[:, :18].mean() < 20


@pytest.mark.parametrize("path", [".", "gone.mp4", "http://localhost/clip.mp4", "nul\0.mp4", "x" * 5000])
def test_missing_file_is_explained(path: str) -> None:
    with pytest.raises(VideoError, match="no video file"):
        read(path)


@pytest.mark.parametrize("data", [b"", b"no clip " * 400], ids=["empty", "text"])
def test_file_that_is_no_video_is_explained(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(data)
    with pytest.raises(VideoError, match="not a video"):
        read(tmp_path / "clip.mp4")


def test_clip_without_frames_is_explained(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="holds no frames"):
        read(write_clip(tmp_path / "none.avi", []))


def test_clip_cut_short_gives_the_frames_that_are_there(clip: Path) -> None:
    whole_times, _ = read(clip)
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 2 // 3])
    times, _ = read(clip)
    assert 0 < len(times) < 30
    assert times == whole_times[: len(times)]


class FakeCapture:
    """An OpenCV capture that reports what a broken container would."""

    def __init__(self, clock_ms: Sequence[float], fps: float, decodes: bool = True) -> None:
        self.clock_ms, self.fps, self.decodes, self.at = clock_ms, fps, decodes, -1
        self.released = False

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> bool:
        return True

    def grab(self) -> bool:
        self.at += 1
        return self.at < len(self.clock_ms)

    def retrieve(self) -> tuple[bool, Pixels]:
        return self.decodes, np.full((4, 6, 3), self.at, dtype=np.uint8)

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_FPS:
            return self.fps
        return self.clock_ms[self.at] if prop == cv2.CAP_PROP_POS_MSEC else -9.2e18

    def release(self) -> None:
        self.released = True


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[FakeCapture], Path]:
    """Puts a fake capture in place of OpenCV's; gives the path to open it by."""

    def install(capture: FakeCapture) -> Path:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        (tmp_path / "broken.mp4").touch()
        return tmp_path / "broken.mp4"

    return install


@pytest.mark.parametrize(
    ("clock_ms", "fps", "expected"),
    [
        ([0, 0, 0, 0], 4.0, [0.0, 0.25, 0.5, 0.75]),
        ([-5e9, -5e9, -5e9], 4.0, [0.0, 0.25, 0.5]),
        ([0, 300, 100, 700], 4.0, [0.0, 0.3, 0.55, 0.7]),
        ([5000, 5040, 5080], 25.0, [5.0, 5.04, 5.08]),
        ([0, 40, 80], 0.0, [0.0, 0.04, 0.08]),
    ],
    ids=["silent", "garbage", "backwards", "late start", "no rate"],
)
def test_frame_rate_stands_in_for_a_broken_clock(
    broken: Callable[[FakeCapture], Path], clock_ms: list[float], fps: float, expected: list[float]
) -> None:
    capture = FakeCapture(clock_ms, fps)
    assert read(broken(capture))[0] == expected
    assert capture.released


def test_a_missing_clock_does_not_drift(broken: Callable[[FakeCapture], Path]) -> None:
    with Clip(broken(FakeCapture([0.0] * 3000, fps=29.97))) as clip:
        times = list(clip.times())
    assert times == pytest.approx([number / 29.97 for number in range(3000)], abs=1e-6)


class Pyramid(FakeCapture):
    """A clip of decode times, 40 ms apart, whose B-frames other B-frames refer to; the decoder's delay is 2 frames."""

    SHOWN_AS = (0, 4, 2, 1, 3, 8, 6, 5, 7)

    def __init__(self, own_stamps: bool) -> None:
        self.decoded_as = [self.SHOWN_AS.index(number) for number in range(9)]
        late_ms = [40.0 * number for number in range(2, 9)] + [0.0, 0.0]
        super().__init__([40.0 * packet for packet in self.decoded_as] if own_stamps else late_ms, fps=25.0)
        self.raw = False

    def set(self, prop: int, value: float) -> bool:
        self.raw |= prop == cv2.CAP_PROP_FORMAT
        return True

    def get(self, prop: int) -> float:
        if prop == cv2.CAP_PROP_FORMAT:
            return -1.0 if self.raw else 0.0
        if prop == cv2.CAP_PROP_FRAME_TYPE:
            return float(ord("IPBBBPBBB"[self.decoded_as[self.at]]))
        return 40.0 * self.at if self.raw and prop == cv2.CAP_PROP_POS_MSEC else super().get(prop)


@pytest.mark.parametrize("own_stamps", [True, False], ids=["MP4", "AVI"])
def test_a_delay_of_several_frames_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_stamps: bool
) -> None:
    opened: list[Pyramid] = []

    def open_another(*_: object) -> Pyramid:
        opened.append(Pyramid(own_stamps))
        return opened[-1]

    monkeypatch.setattr(cv2, "VideoCapture", open_another)
    (tmp_path / "pyramid").touch()
    assert read(tmp_path / "pyramid")[0] == pytest.approx([number / 25 for number in range(9)])
    assert all(capture.released for capture in opened)


@pytest.mark.parametrize(
    ("capture", "message"),
    [
        (FakeCapture([0, 0], fps=0.0), "neither timestamps nor a frame rate"),
        (FakeCapture([0, 40], fps=25.0, decodes=False), "cannot be decoded"),
    ],
)
def test_unreadable_frame_is_explained(
    broken: Callable[[FakeCapture], Path], capture: FakeCapture, message: str
) -> None:
    path = broken(capture)
    with pytest.raises(VideoError, match=message):
        read(path)
    assert capture.released
