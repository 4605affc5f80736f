"""Numbers of numpy are numbers, and bools and texts are not, wherever the package takes one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kamera_agent import SettingError, Trace, sample_fps, sample_scenes
from kamera_agent.agent import Budget, Interval, KeepLast, ScreenWindow
from kamera_agent.options import check_names, real, whole
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.vision.sampling import take_frames

LONG = pytest.param("9" * 10**6, id="a long text")


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), np.uint8(5), np.float32(5)])
def test_a_whole_number(value: Any) -> None:
    number = whole("n", value)
    assert (number, type(number)) == (5, int)


@pytest.mark.parametrize("value", [2, 2.0, np.int8(2), np.float16(2)])
def test_a_real_number(value: Any) -> None:
    number = real("x", value)
    assert (number, type(number)) == (2.0, float)


@pytest.mark.parametrize("value", [True, np.True_, "5", None, 5.5, float("inf"), float("nan"), 5j, [5], LONG])
def test_what_is_not_whole(value: Any) -> None:
    with pytest.raises(SettingError, match=r"^n is .*use a whole number") as caught:
        whole("n", value)
    assert len(str(caught.value)) < 200


# Every place that takes a number of things, as a function of the number; and the name in its message.
PLACES: dict[str, Callable[[Any, Path], object]] = {
    "count": lambda value, _: KeepLast(value),
    "keep": lambda value, _: Interval(value, 1),
    "drop": lambda value, _: Interval(1, value),
    "tokens": lambda value, _: Budget(value),
    "drift_every": lambda value, folder: Trace(folder / "t", drift_every=value),
    "cap_bytes": lambda value, _: MemoryStore(value),
    "queue_bytes": lambda value, folder: LmdbStore(folder / "s", queue_bytes=value),
    "max_frames": lambda value, _: sample_scenes("clip.mp4", max_frames=value),
    "fps": lambda value, _: sample_fps("clip.mp4", value),
    "folder_bytes": lambda value, folder: ScreenWindow(folder=folder / "p", folder_bytes=value),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", [True, "5"])
def test_a_place_refuses_what_is_not_a_number(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=f"^{name} is "):
        PLACES[name](value, tmp_path)


def test_a_place_takes_any_number(tmp_path: Path) -> None:
    assert KeepLast(np.int64(2)) == KeepLast(2.0) == KeepLast(2)  # type: ignore[arg-type]
    assert take_frames(np.zeros((3, 4, 4, 3), np.uint8), fps=np.float32(4)).timestamps == (0.0, 0.25, 0.5)
    store = MemoryStore(2e9)  # type: ignore[arg-type]
    assert store.stats().cap_bytes == 2_000_000_000


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(SettingError, match="The tool has no option 'clour'; did you mean 'colour'"):
        check_names(["clour"], ["colour", "size"], "The tool")
    with pytest.raises(SettingError, match="has no option 'x'; use colour, size"):
        check_names(["x"], ["size", "colour"], "The tool")
    with pytest.raises(SettingError, match="leave it out"):
        check_names(["x"], [], "The tool")
