"""A library in a store: what is computed, by whom, and what windows find there later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kamera_agent import InputError, Kamera, KameraError
from kamera_agent.cli import app
from kamera_agent.ingest.crews import in_processes, on_ray
from kamera_agent.ingest.files import find_media
from kamera_agent.ingest.ingester import Ingester, Job, Outcome
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.vision.sampling import MAX_FRAMES, groups_of, sample_fps, sample_groups

RATE = 4
# Of a clip of 8 frames at two a second, in pairs.
CHUNKS_OF_CLIP = 2


def write_clip(path: Path, num_frames: int, first: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (224, 168))
    for level in range(num_frames):
        writer.write(np.full((168, 224, 3), (37 * first + 11 * level) % 256, dtype=np.uint8))
    writer.release()
    return path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Three clips, one of them deeper, an image, a text, and a clip that nobody can read."""
    folder = tmp_path / "library"
    for number, name in enumerate(("clip10.avi", "clip9.avi", "day/clip.avi")):
        write_clip(folder / name, 8, number)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (168, 224, 3), dtype=np.uint8)).save(folder / "page.png")
    (folder / "notes.txt").write_text("not a clip")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "broken.mp4").write_bytes(bytes(5000))
    return folder


def job(tmp_path: Path, name: str = "store") -> Job:
    return Job("pocket", str(tmp_path / name))


def digests(folder: str) -> set[bytes]:
    with LmdbStore(folder) as store:
        return {header.key.digest for header in store.headers()}


def take_all(work: Job, paths: list[Path]) -> list[Outcome]:
    with Ingester(work) as ingester:
        return [ingester.take(path) for path in paths]


class TestFiles:
    def test_folders_are_searched_and_order_is_that_of_people(self, library: Path) -> None:
        names = [path.name for path in find_media([library, library / "page.png"])]
        assert names == ["broken.mp4", "clip9.avi", "clip10.avi", "clip.avi", "page.png"]

    @pytest.mark.parametrize(("name", "match"), [("gone", "nothing at"), ("empty", "no images or clips")])
    def test_nothing_there(self, tmp_path: Path, name: str, match: str) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=match):
            find_media([tmp_path / name])


class TestGroups:
    @pytest.mark.parametrize("fps", [1, 2, 3.5])
    def test_groups_are_those_of_a_short_clip(self, tmp_path: Path, fps: float) -> None:
        clip = write_clip(tmp_path / "clip.avi", 30)
        ours, expected = sample_groups(clip, fps), groups_of(sample_fps(clip, fps))
        for group, other in zip(ours, expected, strict=True):
            assert group.timestamps == other.timestamps
            assert np.array_equal(group.pixels, other.pixels)

    def test_a_long_clip_is_read_to_its_end(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.avi", 2 * RATE * MAX_FRAMES)
        times = [time_s for group in sample_groups(clip, 1) for time_s in group.timestamps]
        assert times == [*range(2 * MAX_FRAMES)]


def test_windows_recall_what_was_stored(tmp_path: Path, library: Path) -> None:
    work = job(tmp_path)
    outcomes = take_all(work, find_media([library]))
    assert [(one.num_computed, one.num_known) for one in outcomes] == [(0, 0), *[(CHUNKS_OF_CLIP, 0)] * 3, (1, 0)]
    assert [one.path.name for one in outcomes if one.error] == ["broken.mp4"]
    with Kamera.pocket(work.store) as kamera:
        window = kamera.window()
        window.add_text("And what is this?")
        for group in [*groups_of(sample_fps(library / "clip9.avi"))][::-1]:
            window.add_frames(group)
        window.add_image(library / "page.png")
        origins = [row.origin for row in window.plan().rows if row.kind in ("frames", "image")]
    assert origins == ["recalled"] * 3


def test_nothing_is_computed_twice(tmp_path: Path, library: Path) -> None:
    work, paths = job(tmp_path), find_media([library])
    take_all(work, paths[:2])
    assert [(one.num_computed, one.num_known) for one in take_all(work, paths[:3])] == [
        (0, 0),
        (0, CHUNKS_OF_CLIP),
        (CHUNKS_OF_CLIP, 0),
    ]


def test_processes_store_what_one_does(tmp_path: Path, library: Path) -> None:
    paths = find_media([library])
    take_all(job(tmp_path), paths)
    several = job(tmp_path, "several")
    outcomes = list(in_processes(several, paths, 2))
    assert sorted(one.path for one in outcomes) == sorted(paths)
    assert sum(one.num_computed for one in outcomes) == 3 * CHUNKS_OF_CLIP + 1
    assert digests(several.store) == digests(job(tmp_path).store)


def test_a_worker_that_cannot_begin(tmp_path: Path, library: Path) -> None:
    broken = Job(str(tmp_path), str(tmp_path / "store"))
    with pytest.raises(KameraError, match="could not load the model"):
        list(in_processes(broken, find_media([library]), 1))


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    for number in range(30):
        write_clip(tmp_path / "library" / f"{number}.avi", 8, number)
    store = tmp_path / "store"
    arguments = ["ingest", str(tmp_path / "library"), "--store", str(store), "--json"]
    code = f"from kamera_agent.cli import app; app({arguments!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_records(store, 4)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    num_stored = len(digests(str(store)))
    assert num_stored < 30 * CHUNKS_OF_CLIP
    result = CliRunner().invoke(app, arguments)
    report = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 0
    assert (report["known"], report["computed"]) == (num_stored, 30 * CHUNKS_OF_CLIP - num_stored)


def wait_for_records(store: Path, num_records: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (store / "records-4.mdb").is_file() and len(digests(str(store))) >= num_records:
            return
        time.sleep(0.05)
    raise AssertionError(f"{num_records} records did not come")


def test_the_command_names_files_that_failed(tmp_path: Path, library: Path) -> None:
    result = CliRunner().invoke(app, ["ingest", str(library), "--store", str(tmp_path / "store")])
    assert result.exit_code == 1
    assert "5 files in" in result.stdout
    assert "7 chunks computed, 0 were in the store, 1 files failed" in result.stdout
    assert f"{library / 'broken.mp4'}: " in result.stderr


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray, which is not installed")


@needs_ray
def test_actors_store_what_one_process_does(tmp_path: Path, library: Path) -> None:
    paths = find_media([library])
    take_all(job(tmp_path), paths)
    ours = job(tmp_path, "ray")
    outcomes = list(on_ray(ours, paths, "local", 2))
    assert sorted(one.path for one in outcomes) == sorted(paths)
    assert digests(ours.store) == digests(job(tmp_path).store)


@needs_ray
def test_no_cluster(tmp_path: Path, library: Path) -> None:
    with pytest.raises(KameraError, match=r"Ray cluster '127\.0\.0\.1:1'"):
        list(on_ray(job(tmp_path), find_media([library]), "127.0.0.1:1", 1))
