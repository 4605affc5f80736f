"""After a power cut, all that flush() waited for is there."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from store_records import genuine, make_key, versioned_record

from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

CAP_BYTES = 200_000
NUM_FLUSHES = 15
NAMES = [f"r{i}{patch}" for i in range(12) for patch in ("", "/p")]

Held = dict[str, int]


def write(folder: Path) -> list[Held]:
    """Put, replace, delete and evict. After every flush, copy the durable file, and note the version of each record."""
    rng, held = random.Random(0), []
    with LmdbStore(folder, CAP_BYTES) as store:
        for number in range(NUM_FLUSHES):
            store.put_many(versioned_record(rng.choice(NAMES), rng.randrange(1000)) for _ in range(rng.randrange(1, 6)))
            store.delete([make_key(rng.choice(NAMES))])
            store.flush()
            shutil.copy(folder / f"{DATABASE}.durable", folder / f"cut{number}")
            found = store.get_many([make_key(name) for name in NAMES])
            held.append(
                {
                    name: found[digest].header.attributes["version"]
                    for name in NAMES
                    if (digest := make_key(name).digest) in found
                }
            )
    return held


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A library that keeps what is durable of a file beside it."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    source, library = Path(__file__).with_name("power.c"), tmp_path / "power.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_what_flush_waited_for_survives_a_power_cut(tmp_path: Path, disk: Path) -> None:
    """1. A process writes; a copy of its file holds what was synced. 2. Open that copy as of the end of each flush."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from test_power import write\n"
        "import json; print(json.dumps(write(Path(sys.argv[2]))))\n"
    )
    arguments = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "disk")]
    done = subprocess.run(
        arguments, env=os.environ | {"LD_PRELOAD": str(disk)}, check=True, stdout=subprocess.PIPE, text=True
    )
    histories: list[Held] = json.loads(done.stdout)
    for number, held in enumerate(histories):
        folder = tmp_path / f"after{number}"
        folder.mkdir()
        shutil.copy(tmp_path / "disk" / f"cut{number}", folder / DATABASE)
        with LmdbStore(folder) as store:
            found = store.get_many([make_key(name) for name in NAMES])
            assert store.check().problems == ()
        versions = {name: found[make_key(name).digest] for name in held if make_key(name).digest in found}
        assert {name: record.header.attributes["version"] for name, record in versions.items()} == held
        assert all(genuine(name, record) for name, record in versions.items())
    assert sum(map(len, histories)) > 5 * NUM_FLUSHES


def test_the_names_of_a_new_store_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def note(opened: int) -> None:
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            synced.append(Path(os.readlink(f"/proc/self/fd/{opened}")))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", note)
    LmdbStore(tmp_path / "store", CAP_BYTES).close()
    assert synced == [tmp_path / "store", tmp_path]
