"""The notebook about a clip, run anew in a folder of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import nbformat
import numpy as np
import pytest
from models import TINY

from kamera_agent import sample_fps
from kamera_agent.pocket.model import build_model, build_processor
from training.run import save_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "video_qa"
NOTEBOOK = "video_qa.ipynb"
SETTINGS = {"MODEL": '"pocket"', "CLIP": '"clip.mp4"'}
TELL = """
import json
from dataclasses import asdict
print(json.dumps([[asdict(turn) for turn in meter.turns] for meter in (story, film)]))
"""
WINDOW = 6
Turn = dict[str, Any]

# The whole notebook runs in a fixture; a busy machine takes its time.
pytestmark = pytest.mark.timeout(400)


class Played(NamedTuple):
    """An executed notebook, the turns of its two parts, and its page."""

    notebook: Any
    story: list[Turn]
    film: list[Turn]
    page: str


def play(folder: Path, **settings: str) -> Played:
    """Copy the example, change lines of its first cell, run it as `make example-video` does."""
    copied = shutil.copytree(EXAMPLE, folder / "example")
    notebook = nbformat.read(copied / NOTEBOOK, as_version=4)
    lines = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in settings.items():
        assert f"{name} = {SETTINGS[name]}" in lines.source
        lines.source = lines.source.replace(f"{name} = {SETTINGS[name]}", f"{name} = {value!r}")
    notebook.cells.append(nbformat.v4.new_code_cell(TELL))
    nbformat.write(notebook, copied / NOTEBOOK)
    command = [sys.executable, copied / "execute.py", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    executed = nbformat.read(folder / "out" / NOTEBOOK, as_version=4)
    story, film = json.loads(executed.cells.pop().outputs[0].text)
    return Played(executed, story, film, (folder / "out" / NOTEBOOK).with_suffix(".html").read_text("utf-8"))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("video"))


def numbers(turn: Turn, turns: list[Turn]) -> list[int]:
    """The moments of a turn's window, numbered from 1 in the order of the clip."""
    ids = {moment for other in turns for moment, _ in other["moments"]}
    in_order = sorted(ids, key=lambda moment: int(moment.removeprefix("frames")))
    return [in_order.index(moment) + 1 for moment, _ in turn["moments"]]


def computed(turn: Turn) -> list[str]:
    return [moment for moment, origin in turn["moments"] if origin == "computed"]


def num_tokens(turn: Turn, *origins: str) -> int:
    rows = turn["reply"]["plan"]["rows"]
    return sum(row["num_tokens"] for row in rows if not origins or row["origin"] in origins)


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/jpeg" in output.get("data", {}) for output in outputs)


def test_the_story_is_answered_as_it_was_drawn(played: Played) -> None:
    """Where the star is at the end of each window, as its filmstrip shows it."""
    asked = [(numbers(turn, played.story), turn["reply"]["text"]) for turn in played.story]
    assert asked[:-1] == [
        ([2, 3, 4], "water"),
        ([3, 4, 5], "grass"),
        ([4, 5, 6], "road"),
        ([1, 2, 3], "water"),
        ([1, 2, 3], "one"),
    ]
    assert [turn["full_answer"] for turn in played.story[:-1]] == [answer for _, answer in asked[:-1]]


def test_what_is_now_after_a_reorder_is_refreshed(played: Played) -> None:
    """What was last when it was seen is not any more, and a refresh tells it so."""
    turn = played.story[-1]
    assert numbers(turn, played.story) == [2, 3, 1]
    assert {origin for _, origin in turn["moments"]} <= {"moved", "computed"}
    assert (turn["full_answer"], turn["reply"]["text"]) == ("sand", "sand")


def test_the_window_goes_along_the_clip_and_back(played: Played) -> None:
    windows = [numbers(turn, played.film) for turn in played.film]
    along = [list(range(first, first + WINDOW)) for first in range(1, 10)]
    assert windows == [*along, [1, 10, 11, 12, 13, 14], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]


def test_only_what_is_new_is_computed(played: Played) -> None:
    first, *slides = played.film[:9]
    assert num_tokens(first, "computed") == num_tokens(first)
    for turn in slides:
        (oldest, _), *_, (newest, origin) = turn["moments"]
        # Nothing is before the oldest any more, so a refresh may compute it whole.
        assert origin == "computed"
        assert set(computed(turn)) <= {oldest, newest}
    again, back, _ = played.film[9:]
    assert again["moments"][0][1] == "recalled"
    assert {origin for _, origin in again["moments"][1:]} <= {"kept", "computed"}
    assert [back["moments"][0][1], {origin for _, origin in back["moments"][1:]}] == ["kept", {"recalled"}]
    talk = num_tokens(back, "computed")
    moment = 12 * 9 + 2  # 672x504 in cells of 56, and two markers
    assert num_tokens(slides[0], "computed") == talk + moment * len(computed(slides[0]))


def test_an_exact_window_is_a_full_prefill(played: Played) -> None:
    first = played.film[0]
    # The rounding of float32, squared.
    assert abs(first["kl"]) < np.finfo(np.float32).eps
    assert first["same_token"]


def test_it_shows_pictures_and_its_page_stands_alone(played: Played) -> None:
    assert pictures(played.notebook) == 3
    assert played.page.count("data:image/jpeg;base64,") == 3
    assert not [
        line for line in ('src="http', "src='http", '@import url("http', 'rel="stylesheet"') if line in played.page
    ]


def test_the_committed_notebook_was_run() -> None:
    """What is looked at in the repository: pictures, no errors, no machine's paths, and small."""
    text = (EXAMPLE / NOTEBOOK).read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for cell in cells for output in cell.outputs} == {
        "stream",
        "display_data",
        "execute_result",
    }
    assert {output.name for cell in cells for output in cell.outputs if output.output_type == "stream"} == {"stdout"}
    assert pictures(notebook) == 3
    assert "site-packages" not in text
    assert len(text) < 600_000


def test_the_clip_can_be_read() -> None:
    frames = sample_fps(EXAMPLE / "clip.mp4", fps=2)
    assert frames.pixels.shape == (28, 504, 672, 3)
    assert frames.timestamps[-1] == 13.6
    assert np.abs(frames.pixels[0].astype(int) - frames.pixels[-1]).mean() > 1


def test_another_model_and_clip_take_a_line_each(tmp_path: Path) -> None:
    """Seeded weights of the other backbone, from a folder, and a clip of noise: the mechanics hold."""
    save_checkpoint(build_model(TINY, backbone="qwen2_vl"), build_processor(TINY), tmp_path / "model")
    clip = tmp_path / "noise.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 2, (168, 112))
    for block in np.random.default_rng(0).integers(0, 256, (16, 8, 12, 3), dtype=np.uint8):
        writer.write(block.repeat(14, axis=0).repeat(14, axis=1))
    writer.release()
    other = play(tmp_path, MODEL=str(tmp_path / "model"), CLIP=str(clip))
    assert len(other.film) == 6
    assert abs(other.film[0]["kl"]) < np.finfo(np.float32).eps
    again, back, _ = other.film[-3:]
    assert again["moments"][0][1] == "recalled"
    assert not computed(back)
