"""kamera ask, over drawn screens and a clip."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_records import RunKamera
from PIL import Image

from kamera_agent import Kamera
from kamera_agent.pocket.renderer import draw_screen, draw_shot
from kamera_agent.pocket.world import World

QUESTION = "Where is anna?"


@pytest.fixture
def screens(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(draw_screen(World(np.random.default_rng(seed)).tell("links", 1)[0])).save(paths[-1])
    return paths


def test_ask_answers_as_a_window_does(tmp_path: Path, screens: list[Path], run_kamera: RunKamera) -> None:
    done = run_kamera("ask", *screens, QUESTION, "--store", tmp_path / "store")
    assert done.exit_code == 0, done.stderr
    with Kamera.pocket() as kamera:
        window = kamera.window()
        for path in screens:
            window.add_image(path)
        assert done.stdout.strip() == window.generate(QUESTION).text
    assert "tokens computed" in done.stderr


def test_ask_recalls_what_it_saw_before(tmp_path: Path, screens: list[Path], run_kamera: RunKamera) -> None:
    first, second = (run_kamera("ask", *screens, QUESTION, "--store", tmp_path / "store") for _ in range(2))
    assert " 0 recalled" in first.stderr
    assert " 0 recalled" not in second.stderr


def test_ask_looks_at_the_last_ones(tmp_path: Path, screens: list[Path], run_kamera: RunKamera) -> None:
    done = run_kamera("ask", *screens, QUESTION, "--keep-last", 1, "--store", tmp_path / "store")
    with Kamera.pocket() as kamera:
        window = kamera.window()
        window.add_image(screens[-1])
        assert done.stdout.strip() == window.generate(QUESTION).text


def test_ask_reads_clips(tmp_path: Path, run_kamera: RunKamera) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 4, (224, 168))
    for level in range(8):
        writer.write(np.full((168, 224, 3), 30 * level, dtype=np.uint8))
    writer.release()
    done = run_kamera("ask", clip, "Where is the star now?", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("name", ["clip.ts", "clip.mts", "clip"])
def test_files_with_other_names_are_read_by_content(
    tmp_path: Path, run_kamera: RunKamera, screens: list[Path], name: str
) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 4, (224, 168))
    for level in range(8):
        writer.write(np.full((168, 224, 3), 30 * level, dtype=np.uint8))
    writer.release()
    screen = screens[0].rename(tmp_path / "screen")
    done = run_kamera("ask", screen, clip.rename(tmp_path / name), QUESTION, "--store", tmp_path / "store")
    assert done.exit_code == 0, done.stderr
    assert "tokens computed" in done.stderr


def test_bad_questions_end_as_one_line(tmp_path: Path, run_kamera: RunKamera) -> None:
    for arguments in (
        ("Where?",),
        (tmp_path / "none.png", "Where?"),
        (tmp_path / "none.mp4", "Where?"),
        (__file__, "Where?"),
    ):
        done = run_kamera("ask", *arguments, "--store", tmp_path / "store")
        assert done.exit_code == 1
        assert done.stderr.startswith("kamera: ")
        assert done.stderr.count("\n") == 1


def test_a_folder_of_images_is_a_clip(tmp_path: Path, run_kamera: RunKamera) -> None:
    """In the order of their names, 9 before 10, and with the timestamps of the rate. Other files are left out."""
    folder = tmp_path / "frames"
    folder.mkdir()
    shots = [draw_shot(shot)[0] for shot in World(np.random.default_rng(5)).tell("moves", 4)]
    for number, shot in zip((8, 9, 10, 11), shots, strict=True):
        Image.fromarray(shot).save(folder / f"frame_{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    question = "Where is the star now?"
    done = run_kamera("ask", folder, question, "--fps", 4, "--store", tmp_path / "store")
    assert done.exit_code == 0, done.stderr
    with Kamera.pocket() as kamera:
        window = kamera.window()
        window.add_frames(shots[:2], [0, 0.25])
        window.add_frames(shots[2:], [0.5, 0.75])
        reply = window.generate(question)
    assert done.stdout.strip() == reply.text
    # The chunks, timestamps included, are those of the store.
    with Kamera.pocket(tmp_path / "store") as kamera:
        window = kamera.window()
        window.add_frames(shots[:2], [0, 0.25])
        window.add_frames(shots[2:], [0.5, 0.75])
        assert window.generate(question).usage.tokens_recalled > 0
