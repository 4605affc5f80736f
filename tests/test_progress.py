"""The progress bar: silent by default, on a terminal only, and only when reading takes long."""

import io
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from kamera_agent import Kamera, progress
from kamera_agent.progress import with_progress


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
    assert "reading clip" in terminal.getvalue()
    # The last thing that is written covers the line with spaces and returns to its beginning.
    assert [part.strip() for part in terminal.getvalue().split("\r")[-2:]] == ["", ""]


def test_the_environment_turns_bars_off(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = install_terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(progress, "_make_bar", lambda label, total: pytest.fail("a bar was made"))
    assert list(with_progress([0.0, 0.5], 1.0, "reading clip")) == [0.0, 0.5]
    assert terminal.getvalue() == ""


class Log:
    """Stands in for a stderr of the program's own, which has little more than write()."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


@pytest.mark.parametrize("stderr", [None, Log()], ids=["none", "an object of the program's own"])
def test_any_stderr_will_do(monkeypatch: pytest.MonkeyPatch, stderr: Log | None) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert list(with_progress([0.0, 0.5], 1.0, "reading clip")) == [0.0, 0.5]
    assert stderr is None or stderr.text == ""


def test_a_closed_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = install_terminal(monkeypatch)
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    times = with_progress(iter([0.0, 0.5, 1.0]), 1.0, "reading clip")
    next(times)
    terminal.close()
    assert list(times) == [0.5, 1.0]
    assert list(with_progress([0.0, 0.5], 1.0, "reading clip")) == [0.0, 0.5]


class Bar:
    """Stands in for a bar of tqdm, and keeps what it is told."""

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total, self.n, self.closed_at = label, total, 0.0, -1.0

    def update(self, amount: float) -> None:
        self.n += amount

    def close(self) -> None:
        self.closed_at = self.n


def test_a_long_prefill_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each answer, over its runs and layers; none for the tokens of a reply and the work in the background."""
    bars: list[tuple[Bar, float]] = []

    def make_bar(label: str, total: float) -> Bar:
        bars.append((Bar(label, total), total))
        return bars[-1][0]

    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    monkeypatch.setattr(progress, "_make_bar", make_bar)
    with Kamera.pocket() as kamera:
        window = kamera.window()
        window.add_image(np.zeros((56, 56, 3), np.uint8))
        install_terminal(monkeypatch)
        for num_answers in (1, 2):
            reply = window.generate("Where is anna?", max_new_tokens=3)
            kamera.flush()
            assert len(bars) == num_answers
            kinds = ["image" if row.kind == "image" else "text" for row in reply.plan.rows if row.origin == "computed"]
            # Texts in a row are computed as one.
            num_runs = sum(1 for _ in groupby(kinds))
            assert bars[-1][1] == num_runs + len(kamera.family.decoder.kinds)
    assert all((bar.label, bar.closed_at) == ("computing", total) for bar, total in bars)


def test_a_notebook_shows_a_widget_and_takes_it_away(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets")
    source = """
from kamera_agent import progress
progress.QUIET_S = 0.0
times = list(progress.with_progress([0.0, 0.5], 1.0, "reading clip"))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs), outputs
    assert not any(output.get("name") == "stderr" for output in outputs), outputs
