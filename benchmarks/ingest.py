"""`kamera ingest` of many short clips: by one process, by two, and by two actors on Ray; and after a kill.

    python -m benchmarks.ingest --json [--clips 200]

The clips are drawn from a seed: two seconds each, of which a run keeps four frames as two chunks of the pocket model.
Every way fills an empty store. Then it runs again over the full store, which takes what its start and looking up take.
Ways by several workers are killed (SIGKILL, all of their processes) once the store has a quarter of the chunks, and
started anew over what is there.

seconds, chunks_per_s  of the run that fills the store, loading the model and starting the workers included
again_s                of the run over the full store
killed                 stored: chunks when all processes were gone. known, computed: as the run after that says.
                       computed_twice: chunks that were stored, and that it computed all the same
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.command import parser_of, show, versions
from kamera_agent.store.lmdb_store import LmdbStore

RATE, NUM_FRAMES, SIZE, BLOCK = 4, 8, (168, 224), 14
CHUNKS_PER_CLIP = 2
SEED = 0
WAYS: dict[str, tuple[str, ...]] = {
    "one process": (),
    "two processes": ("--workers", "2"),
    "two actors on Ray": ("--workers", "2", "--ray", "local"),
}
PROGRAM = "from kamera_agent.cli import app; app()"
POLL_S, PATIENCE_S = 0.05, 300.0


def write_clips(folder: Path, num_clips: int) -> None:
    """Clips of blocks that move to the right, each with blocks of its own."""
    rng, (height, width) = np.random.default_rng(SEED), SIZE
    for number in range(num_clips):
        blocks = rng.integers(0, 256, (height // BLOCK, width // BLOCK, 3), dtype=np.uint8)
        scene = blocks.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        path = folder / f"clip{number}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (width, height))
        for step in range(NUM_FRAMES):
            writer.write(np.roll(scene, BLOCK * step, axis=1))
        writer.release()


class Run:
    """`kamera ingest` of a library into a store, in a process of its own."""

    def __init__(self, library: Path, store: Path, options: Sequence[str]) -> None:
        command = [sys.executable, "-c", PROGRAM, "ingest", str(library), "--store", str(store), "--json", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def report(self) -> dict[str, Any]:
        """What it says at its end. Raises RuntimeError where it fails."""
        out, errors = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"kamera ingest failed: {errors[-2000:]}")
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said

    def kill(self) -> None:
        """End it and all that it has started at once, and wait until they are gone."""
        running = psutil.Process(self._process.pid)
        family = [running, *running.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.communicate()
        psutil.wait_procs(family)


def measure(library: Path, folder: Path, num_chunks: int, options: Sequence[str]) -> dict[str, Any]:
    """Fill a store in one way, and run again over it."""
    first, again = (Run(library, folder, options).report() for _ in range(2))
    assert (first["computed"], again["computed"], again["known"]) == (num_chunks, 0, num_chunks), (first, again)
    return {
        "computed": first["computed"],
        "seconds": first["seconds"],
        "chunks_per_s": round(num_chunks / first["seconds"], 2),
        "again_s": again["seconds"],
    }


def measure_kill(library: Path, folder: Path, num_chunks: int, options: Sequence[str]) -> dict[str, Any]:
    """Kill a run and start another one over what it has stored."""
    killed = Run(library, folder, options)
    end = time.monotonic() + PATIENCE_S
    while _num_stored(folder) < num_chunks // 4 and time.monotonic() < end:
        time.sleep(POLL_S)
    killed.kill()
    num_stored = _num_stored(folder)
    resumed = Run(library, folder, options).report()
    assert resumed["known"] + resumed["computed"] == num_chunks == _num_stored(folder), resumed
    return {
        "stored": num_stored,
        "known": resumed["known"],
        "computed": resumed["computed"],
        "computed_twice": num_stored - resumed["known"],
        "seconds": resumed["seconds"],
    }


def _num_stored(folder: Path) -> int:
    if not any(folder.glob("records-*.mdb")):
        return 0
    with LmdbStore(folder) as store:
        return len(store.headers())


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips of the library (default 200)")
    options = parser.parse_args()
    num_chunks = CHUNKS_PER_CLIP * options.clips
    result: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "library"
        library.mkdir()
        write_clips(library, options.clips)
        for way, chosen in WAYS.items():
            if "--ray" in chosen and find_spec("ray") is None:
                print("ray is not installed, so its way is left out")
                continue
            result[way] = measure(library, folder / way, num_chunks, chosen)
            if chosen:
                result[way]["killed"] = measure_kill(library, folder / f"{way}, killed", num_chunks, chosen)
            print(f"{way}: {result[way]}", flush=True)
    conditions = {
        "model": "pocket, float32",
        "clips": options.clips,
        "chunks": num_chunks,
        "clip": f"{NUM_FRAMES} frames of {SIZE[1]}x{SIZE[0]}, MJPG",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "seed": SEED,
        **versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    show({**result, "conditions": conditions}, options.json)


if __name__ == "__main__":
    main()
