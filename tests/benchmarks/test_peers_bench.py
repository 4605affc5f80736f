"""The benchmark of serving engines, without engines."""

import io
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.peers import arm
from benchmarks.peers.__main__ import sums, warm_ups
from benchmarks.peers.trace import NAME, Step, read_trace


class Counting:
    """An arm that computes one token per screen."""

    def __init__(self) -> None:
        self.num_rests = 0

    def answer(self, step: Step) -> dict[str, float]:
        return {"tokens": len(step.screens), "ms": 2.0}

    def rest(self) -> None:
        self.num_rests += 1


def test_an_arm_takes_steps_line_by_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    counting, module = Counting(), ModuleType("counting")
    module.start = lambda checkpoint, with_kamera: counting  # type: ignore[attr-defined]
    monkeypatch.setitem(arm.ARMS, "counting", ("counting", False))
    monkeypatch.setattr(arm, "import_module", lambda name: module)
    lines = [json.dumps({"screens": ["a"] * number, "question": "?"}) for number in (1, 3)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    arm.main("counting", "folder")
    said = [line.removeprefix(arm.MARK) for line in capsys.readouterr().out.splitlines() if line.startswith(arm.MARK)]
    first, third = ({"tokens": number, "ms": 2.0} for number in (1, 3))
    assert [json.loads(line) for line in said] == ["ready", first, "rested", third, "rested"]
    assert counting.num_rests == 2


def test_a_trace_is_read_as_it_was_written(tmp_path: Path) -> None:
    step = {"screens": ["a.png", "b.png"], "question": "what?", "event": "new"}
    (tmp_path / NAME).write_text(json.dumps([step]))
    assert read_trace(tmp_path) == [Step(("a.png", "b.png"), "what?", "new")]


def test_the_last_warm_up_brings_a_picture_back(tmp_path: Path) -> None:
    windows = [step.screens for step in warm_ups(tmp_path, 64)]
    assert all(len(screens) == 3 and all(Path(screen).exists() for screen in screens) for screens in windows)
    assert windows[1][:2] == windows[0][1:]
    assert windows[-1] == windows[0]


def test_sums_are_by_arm() -> None:
    steps = [{"own": {"tokens": 2.0, "ms": 1.4}, "other": {"tokens": 5.0, "ms": 3.0}}] * 2
    assert sums(steps) == {"own": {"tokens": 4, "ttft_ms": 3}, "other": {"tokens": 10, "ttft_ms": 6}}
