"""Beginnings and ends: closing under an open stream, the end of a program, forks, and Kameras that nobody closes."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import MakeKamera, screenshot

from kamera_agent import Kamera, StoreClosedError, StoreUnavailableError, Window
from kamera_agent.pocket.model import PocketProcessor
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore

SECONDS = 90
OPEN_STREAM = """
import sys
import numpy as np
from kamera_agent import Kamera
window = Kamera.pocket(sys.argv[1]).window()
window.add_image(np.zeros((112, 168, 3), np.uint8))
window.generate("Where is anna?", max_tokens=1)
stream = window.stream("And tom?", temperature=1.0, seed=1, max_tokens=50)
next(stream)
"""


def test_a_program_may_end_while_a_stream_is_open(tmp_path: Path) -> None:
    """It ends without an error, and what an earlier answer computed is in the store."""
    ended = subprocess.run(
        [sys.executable, "-c", OPEN_STREAM, str(tmp_path)], capture_output=True, text=True, timeout=110
    )
    assert (ended.returncode, "Error" in ended.stderr) == (0, False), ended.stderr[-2000:]
    with LmdbStore(tmp_path) as store:
        assert {header.kind for header in store.headers()} == {"base"}


def test_a_stream_outlives_the_kamera_and_nothing_else_does(make: MakeKamera) -> None:
    texts = []
    for closes in (False, True):
        kamera = make()
        window = kamera.window()
        window.add_image(screenshot(0))
        stream = window.stream("what?", max_tokens=9, temperature=1.0, seed=3)
        first = next(stream)
        if closes:
            kamera.close()
        texts.append(first + "".join(stream))
        assert [span.id for span in window.spans][-1] == stream.reply.span_id
        kamera.close()
    assert texts[0] == texts[1]
    later = window.stream
    for answer in (
        lambda: window.generate("and?"),
        lambda: next(later("and?")),
        window.logits,
        window.reference_logits,
        window.plan,
        kamera.window,
    ):
        with pytest.raises(StoreClosedError, match="closed"):
            answer()


def test_a_stream_that_has_not_begun_when_the_kamera_closes(make: MakeKamera) -> None:
    kamera = make()
    stream = kamera.window().stream("what?")
    kamera.close()
    with pytest.raises(StoreClosedError):
        next(stream)


def code_of_child(act: Callable[[], object]) -> int:
    """Exit code of a forked child that acts: 0 unless it raises; negative where it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            # Ends the child even where it hangs in native code.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def see(kamera: Kamera, seed: int) -> Window:
    window = kamera.window()
    window.add_image(screenshot(seed))
    window.generate("what?", max_tokens=1)
    return window


# Later Pythons warn of a fork beside threads, which these tests need.
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@forks
def test_a_forked_child_answers_and_remembers(make: MakeKamera) -> None:
    """The parent's worker holds the locks of the model and of the store now and then while it forks."""
    kamera = make()
    window = see(kamera, 0)

    def act() -> None:
        window.generate("and?", max_tokens=1)
        for seed in range(100, 112):
            see(kamera, seed)
        kamera.flush()
        assert sum(header.kind == "base" for header in kamera.store.headers()) >= 12
        kamera.close()

    for seed in range(1, 4):
        see(kamera, seed)
        assert code_of_child(act) == 0
    kamera.flush()
    assert kamera.stats().failed == 0


@forks
def test_a_forked_child_is_told_to_open_the_folder_again(make: MakeKamera, tmp_path: Path) -> None:
    kamera = make(store=tmp_path)
    window = see(kamera, 0)

    def act() -> None:
        window.add_image(screenshot(1))
        with pytest.raises(StoreUnavailableError, match="again in the child"):
            window.generate("and?", max_tokens=1)

    assert code_of_child(act) == 0
    assert window.generate("and?", max_tokens=1).span_id


def test_a_kamera_that_nobody_closes_gives_its_folder_back(
    models: dict[str, Any], processor: PocketProcessor, tmp_path: Path
) -> None:
    """What it computed is in the store, and another cap is no conflict."""
    kamera = Kamera(models["qwen2_5_vl"], processor, tmp_path, disk_bytes=10**8)
    see(kamera, 0)
    kamera._library.flush()
    del kamera
    with Kamera(models["qwen2_5_vl"], processor, tmp_path, disk_bytes=2 * 10**8) as other:
        assert {header.kind for header in other.store.headers()} == {"base"}


def test_a_deleted_folder_is_said_and_can_be_opened_again(
    make: MakeKamera, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    kamera = make(store=folder)
    see(kamera, 0)
    kamera.flush()
    shutil.rmtree(folder)
    see(kamera, 1)
    kamera.flush()
    assert kamera.stats().store.failed_writes > 0
    said = [record.getMessage() for record in caplog.records if "was deleted while it was open" in record.getMessage()]
    assert len(said) == 2, "once by what reads and once by what writes"
    assert kamera.store.lower.headers() == []
    other = make(store=folder)
    see(other, 2)
    other.flush()
    stats = other.stats().store
    assert (stats.failed_writes, stats.num_records) == (0, 1)
    assert (folder / DATABASE).exists()


HEALING = """
import sys
import numpy as np
from kamera_agent import Kamera
kamera = Kamera.pocket(heal="ahead", stale="keep")
window = kamera.window()
rng = np.random.default_rng(0)
ids = [window.add_image(rng.integers(0, 256, (280, 280, 3), dtype=np.uint8)) for _ in range(8)]
window.generate("Where is anna?", max_tokens=1)
window.expect(ids[1:])
print(kamera.stats().healed_tokens)
"""


def test_a_program_ends_without_waiting_for_healing() -> None:
    ended = subprocess.run([sys.executable, "-c", HEALING], capture_output=True, text=True, timeout=110)
    assert (ended.returncode, "Error" in ended.stderr) == (0, False), ended.stderr[-2000:]
    assert int(ended.stdout) < 100


@forks
@pytest.mark.usefixtures("awake")
def test_a_forked_child_heals_for_itself(make: MakeKamera) -> None:
    """The parent forks now and then while a slice is computed; either goes on as if it were alone."""
    kamera = make(heal="ahead", stale="keep")
    window = kamera.window()
    ids = [window.add_image(screenshot(seed)) for seed in range(6)]

    def act() -> None:
        window.check_integrity()
        window.logits("what?")
        assert kamera.settle()
        assert all(span.exact for span in window.spans)

    for keep in (5, 4, 3):
        window.slide(keep)
        window.logits("what?")
        window.expect(ids[-keep + 1 :])
        assert code_of_child(act) == 0
    act()
