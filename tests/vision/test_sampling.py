"""Which frames of a clip are kept, and the seconds they carry."""

from collections.abc import Callable
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


def test_max_frames_holds_when_the_container_states_no_length(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Clip.__init__

    def open_without_length(self: Clip, path: Path) -> None:
        opened(self, path)
        self.duration_s = 0.0

    monkeypatch.setattr(Clip, "__init__", open_without_length)
    assert numbers(sample_fps(clip, fps=10, max_frames=3)) == [0, 1, 2]


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
