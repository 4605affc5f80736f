"""Which frames of a clip are kept, and the seconds they carry."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from pictures import write_clip

from kamera_agent.errors import SettingError
from kamera_agent.vision.clip import Clip
from kamera_agent.vision.frames import Frames
from kamera_agent.vision.image import Pixels
from kamera_agent.vision.sampling import sample_fps, sample_scenes

# Grey levels between two frames of the clip in conftest.py.
STEP = 8


def numbers(frames: Frames) -> list[int]:
    return [round(float(pixels.mean()) / STEP) for pixels in frames.pixels]


@pytest.mark.parametrize(
    ("fps", "kept"),
    [
        (2, [0, 5, 10, 15, 20, 25]),
        (3, [0, 4, 7, 10, 14, 17, 20, 24, 27]),
        (0.5, [0, 20]),
        (0.01, [0]),
        (10, list(range(30))),
        (1000, list(range(30))),
    ],
)
def test_first_frame_of_every_slot_is_kept(clip: Path, fps: float, kept: list[int]) -> None:
    frames = sample_fps(clip, fps)
    assert numbers(frames) == kept
    assert frames.timestamps == tuple(number / 10 for number in kept)
    assert frames.pixels.shape == (len(kept), 48, 64, 3)


@pytest.mark.parametrize("rate", [23.976, 29.97, 59.94])
def test_rounded_times_lose_no_frame(tmp_path: Path, rate: float) -> None:
    path = write_clip(tmp_path / "a.webm", range(0, 240, STEP), fps=rate, codec="VP80")
    assert numbers(sample_fps(path, fps=rate)) == list(range(30))


def test_long_clip_is_thinned_over_its_whole_length(clip: Path) -> None:
    assert numbers(sample_fps(clip, fps=10, max_frames=6)) == [0, 5, 10, 15, 20, 25]


def state_length(monkeypatch: pytest.MonkeyPatch, stated_s: float) -> None:
    opened = Clip.__init__

    def open_with_length(self: Clip, path: Path) -> None:
        opened(self, path)
        self.duration_s = stated_s

    monkeypatch.setattr(Clip, "__init__", open_with_length)


@pytest.mark.parametrize("max_frames", [1, 2, 3, 7, 29, 30, 64])
def test_clip_without_a_length_is_thinned_over_its_whole_length(
    clip: Path, monkeypatch: pytest.MonkeyPatch, max_frames: int
) -> None:
    """1. Take the first of the rates 10, 5, 2.5, ... that keeps few enough frames. 2. Read without the length."""
    rates = (10 / 2**halvings for halvings in range(9))
    expected = next(kept for rate in rates if len(kept := numbers(sample_fps(clip, rate))) <= max_frames)
    state_length(monkeypatch, 0.0)
    assert numbers(sample_fps(clip, fps=10, max_frames=max_frames)) == expected


@pytest.mark.parametrize("max_frames", [1, 3, 7, 29])
def test_clip_longer_than_stated_is_read_to_its_end(
    clip: Path, monkeypatch: pytest.MonkeyPatch, max_frames: int
) -> None:
    state_length(monkeypatch, 0.4)
    kept = numbers(sample_fps(clip, fps=10, max_frames=max_frames))
    step = max([1, *(after - before for before, after in pairwise(kept))])
    assert len(kept) <= max_frames
    assert len(kept) == 1 or 30 - kept[-1] <= 2 * step


def test_recording_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    """A browser that records streams its file, and never goes back to write the length."""
    path = write_clip(tmp_path / "recording.webm", (number % 256 for number in range(900)), codec="VP80")
    complete = sample_fps(path)
    data = path.read_bytes()
    # The duration of the header becomes filler (Void) of the same size.
    path.write_bytes(data.replace(b"\x44\x89\x88", b"\xec\x89\x88", 1))
    with Clip(path) as clip:
        assert clip.duration_s == 0
    frames = sample_fps(path)
    steps = {round(after - before, 3) for before, after in pairwise(frames.timestamps)}
    assert steps == {2.0}
    assert 90 - frames.timestamps[-1] <= 2.0
    assert complete.timestamps[-1] <= frames.timestamps[-1] + 2.0


def test_skipped_frames_are_not_copied_out(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    pixels = Clip.pixels

    def counted(self: Clip) -> Pixels:
        copied.append(self)
        return pixels(self)

    monkeypatch.setattr(Clip, "pixels", counted)
    sample_fps(clip, 2)
    assert len(copied) == 6


@pytest.mark.parametrize("flicker", [0, 4], ids=["clean", "flickering"])
def test_scenes_are_cut_where_the_picture_changes(tmp_path: Path, flicker: int) -> None:
    cuts = {0: 20, 7: 120, 8: 220, 19: 60}
    levels, level = [], 0
    for i in range(25):
        level = cuts.get(i, level)
        levels.append(level + flicker * (i % 2))
    frames = sample_scenes(write_clip(tmp_path / "cuts.avi", levels))
    assert frames.timestamps == tuple(i / 10 for i in cuts)


def test_slow_change_is_measured_from_the_frame_kept_last(clip: Path) -> None:
    assert numbers(sample_scenes(clip, threshold=3.5 * STEP)) == [0, 4, 8, 12, 16, 20, 24, 28]


def test_scenes_stop_at_max_frames(clip: Path) -> None:
    assert numbers(sample_scenes(clip, threshold=4, max_frames=3)) == [0, 1, 2]


# The file does not exist: settings are checked before it is looked for.
@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_outside_its_range_is_refused(fps: float) -> None:
    with pytest.raises(SettingError, match=f"fps is {fps}"):
        sample_fps("gone.mp4", fps)


@pytest.mark.parametrize("threshold", [0, -3, 256, float("nan")])
def test_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(SettingError, match=f"threshold is {threshold}"):
        sample_scenes("gone.mp4", threshold)


@pytest.mark.parametrize("sample", [sample_fps, sample_scenes])
def test_max_frames_outside_its_range_is_refused(sample: Callable[..., Frames]) -> None:
    with pytest.raises(SettingError, match="max_frames is 0"):
        sample("gone.mp4", max_frames=0)
