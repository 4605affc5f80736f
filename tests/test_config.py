"""The place of what is kept: KAMERA_HOME, then XDG_CACHE_HOME, then the folder of the user."""

from contextlib import closing
from pathlib import Path

import pytest

from kamera_agent import Kamera
from kamera_agent.agent.middleware import DEFAULT_FOLDER
from kamera_agent.agent.pixels import PixelFolder
from kamera_agent.config import DEFAULT_STORE, locate
from kamera_agent.store.environment import DATABASE
from kamera_agent.store.lmdb_store import LmdbStore


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAMERA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def test_the_first_of_three_places_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(DEFAULT_STORE) == tmp_path / "user/.cache/kamera"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert locate(DEFAULT_STORE) == tmp_path / "xdg/kamera"
    monkeypatch.setenv("KAMERA_HOME", str(tmp_path / "home"))
    assert locate(DEFAULT_STORE) == tmp_path / "home"
    assert locate("$KAMERA_HOME/pixels") == tmp_path / "home/pixels"


@pytest.mark.parametrize(("name", "value"), [("KAMERA_HOME", ""), ("XDG_CACHE_HOME", ""), ("XDG_CACHE_HOME", "rel")])
def test_an_empty_name_counts_as_none(name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG folder as well: the specification has it ignored."""
    monkeypatch.setenv(name, value)
    assert locate(DEFAULT_STORE) == tmp_path / "user/.cache/kamera"


def test_a_home_may_be_relative_to_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMERA_HOME", "~/kamera")
    assert locate(DEFAULT_STORE) == tmp_path / "user/kamera"


@pytest.mark.parametrize("path", ["/data/$KAMERA_HOME", "data", ".", ""])
def test_other_paths_stay(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMERA_HOME", "/home")
    assert locate(path) == Path(path)


def test_stores_and_pixels_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMERA_HOME", str(tmp_path / "home"))
    assert PixelFolder(DEFAULT_FOLDER, max_bytes=1).path == tmp_path / "home/pixels"
    with Kamera.from_pretrained("pocket"):
        pass
    with closing(LmdbStore("$KAMERA_HOME/other")):
        pass
    assert (tmp_path / "home" / DATABASE).is_file()
    assert (tmp_path / "home/other" / DATABASE).is_file()
    assert not (tmp_path / "user").exists()
