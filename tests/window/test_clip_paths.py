"""Clips by their path, against the same frames passed as frames."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from models import MakeKamera, screenshot

from kamera_agent import FramesContent, sample_fps


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds at four frames per second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 4, (56, 28))
    for number in range(12):
        writer.write(screenshot(number, 28, 56))
    writer.release()
    return path


@pytest.mark.parametrize("form", [Path, str], ids=["Path", "str"])
def test_a_path_is_read_as_sample_fps_reads_it(
    make: MakeKamera, clip: Path, form: Callable[[Path], str | Path]
) -> None:
    window = make().window()
    window.add_frames(sample_fps(clip, 1))
    window.add_frames(form(clip), fps=1)
    window.add_frames(sample_fps(clip))
    window.add_frames(form(clip))
    keys = [span.key for span in window.spans if span.kind == "frames"]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_fps_spaces_frames_without_timestamps(make: MakeKamera) -> None:
    window, frames = make().window(), [screenshot(number) for number in range(3)]
    window.add_frames(frames, timestamps=[0, 0.25, 0.5])
    window.add_frames(frames, fps=4)
    keys = [span.key for span in window.spans if span.kind == "frames"]
    assert keys[0] == keys[1]


def test_a_synced_path_is_the_same_span_in_every_turn(make: MakeKamera, clip: Path) -> None:
    window = make().window()
    first = window.sync([FramesContent(clip, fps=2)])
    assert window.sync([FramesContent(str(clip), fps=2)]) == first
    assert window.sync([FramesContent(clip, fps=1)]) != first
