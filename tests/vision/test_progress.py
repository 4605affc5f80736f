"""The progress bar: silent by default, on a terminal only, and only when reading takes long."""

import io
import sys

import pytest

from kamera_agent.vision import progress
from kamera_agent.vision.progress import with_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def install_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called by the test itself: pytest puts its own stderr back after the fixtures ran."""
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_nothing_is_written_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(with_progress([0.0, 0.5], 1.0, "reading clip")) == [0.0, 0.5]
    assert capsys.readouterr() == ("", "")


def test_nothing_is_written_when_reading_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = install_terminal(monkeypatch)
    assert list(with_progress([0.0, 0.5], 1.0, "reading clip")) == [0.0, 0.5]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("duration_s", [1.0, 0.0], ids=["known length", "unknown length"])
def test_bar_is_shown_when_reading_takes_long(monkeypatch: pytest.MonkeyPatch, duration_s: float) -> None:
    terminal = install_terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    assert list(with_progress([0.0, 0.5], duration_s, "reading clip")) == [0.0, 0.5]
    assert "reading clip" in terminal.getvalue()


def test_bar_ends_with_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = install_terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    times = with_progress(iter([0.0, 0.5, 1.0]), 1.0, "reading clip")
    next(times)
    times.close()
    # Rich hides the cursor while a bar is up; the last thing it does is show it and wipe the line.
    hidden, shown = terminal.getvalue().count("\x1b[?25l"), terminal.getvalue().count("\x1b[?25h")
    assert hidden == shown == 1
    assert terminal.getvalue().endswith("\x1b[2K")
