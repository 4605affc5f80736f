"""Secrets come from a file, a variable or a function, and are in no message."""

from pathlib import Path
from typing import Any

import pytest

from kamera_agent import SettingError, Settings
from kamera_agent.secret import read_secret

SECRET = bytes(range(32))
WRONG = "5ec2e7" * 10


def test_three_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{SECRET.hex()}\n")
    monkeypatch.setenv("MY_KEY", SECRET.hex().upper())
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (tmp_path / "key", str(tmp_path / "key"), "~/key", "env:MY_KEY", lambda: SECRET):
        assert read_secret("encryption_key", source) == SECRET


def test_what_is_no_secret_is_an_error_that_names_the_source_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short").write_text(WRONG)
    (tmp_path / "binary").write_bytes(b"\xff" * 32)
    monkeypatch.setenv("WRONG", WRONG)
    cases: list[tuple[Any, str]] = [
        (tmp_path / "short", "does not hold 64 hexadecimal digits"),
        (tmp_path / "binary", "it is no text"),
        (tmp_path / "nothing", "No such file"),
        (tmp_path, "cannot be read"),
        ("env:WRONG", "The environment variable WRONG"),
        ("env:NOTHING", "there is no environment variable NOTHING"),
        (lambda: WRONG, "returned no bytes object"),
        (lambda: SECRET[:-1], "returned no bytes object"),
    ]
    for source, message in cases:
        with pytest.raises(SettingError, match=message) as error:
            read_secret("encryption_key", source)
        assert WRONG not in str(error.value)


@pytest.mark.parametrize("name", ["encryption_key", "namespace_secret"])
def test_settings_hold_the_source_and_never_the_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET.hex())
    assert getattr(Settings(**{name: Path("a/key")}), name) == "a/key"
    assert SECRET.hex() not in repr(Settings(**{name: "env:MY_KEY"}))
    with pytest.raises(SettingError, match=name):
        Settings(**{name: SECRET})
