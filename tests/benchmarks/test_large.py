"""The programs of the benchmarks on a GPU from their arguments to their JSON, on a tiny model on the CPU."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import TINY

from benchmarks import decode, gpu, gpu_window, large
from benchmarks.gpu import Part
from benchmarks.gpu_window import EVENTS, Scene

TINY_SCENE = Scene(num_screens=3, screen=(112, 168), num_frames=2, frame=(56, 84))


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is the CPU, and the dtype of the GPU."""
    monkeypatch.setattr(large, "DEVICE", "cpu")
    monkeypatch.setattr(large, "SHAPE", TINY)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a CPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))


def output(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The JSON in the last line that a program prints."""
    main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_window(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_window, "Scene", lambda: TINY_SCENE)
    arguments = gpu.parts()["window"].command[3:]
    monkeypatch.setattr(sys, "argv", ["gpu_window", *arguments[:-1], "1"])
    result = output(gpu_window.main, capsys)
    assert [*result] == [*EVENTS, "conditions"]
    assert result["conditions"]["dtype"] == "bfloat16"
    assert (result["conditions"]["device"], result["conditions"]["rounds"]) == ("a CPU", 1)
    assert result["conditions"]["scene"]["num_frames"] == 2


@pytest.mark.parametrize("has_grammars", [True, False], ids=["grammars", "no grammars"])
def test_decode(has_grammars: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine without llguidance measures the rest."""
    find = importlib.util.find_spec
    monkeypatch.setattr(decode, "SIZE", (112, 168))
    monkeypatch.setattr(decode, "find_spec", lambda name: find(name) if has_grammars else None)
    monkeypatch.setattr(sys, "argv", ["decode", *gpu.parts()["decode"].command[3:], "--tokens", "8"])
    result = output(decode.main, capsys)
    assert set(result) == {"free", "repeats", "conditions"} | ({"forced"} if has_grammars else set())
    assert [*result["free"]] == ["1", "4", "8"]
    assert result["repeats"]["4"]["ratio"] > 0
    assert (result["conditions"]["dtype"], result["conditions"]["tokens"]) == ("bfloat16", 8)


def test_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is that of the parts. The result has their outcomes and the conditions."""
    path = tmp_path / "gpu.json"
    some = {
        name: Part([sys.executable, "-c", f"print('{{}}'); raise SystemExit({name!r} == 'bad')"], 60)
        for name in ("good", "bad")
    }
    monkeypatch.setattr(gpu, "parts", lambda: some)
    for names, status in [(["good"], 0), (["good", "bad"], 1)]:
        monkeypatch.setattr(sys, "argv", ["gpu", "--result", str(path), "--only", *names])
        with pytest.raises(SystemExit) as stop:
            gpu.main()
        assert stop.value.code == status
        result = json.loads(path.read_text())
        assert [*result] == [*names, "conditions"]
        assert result["conditions"]["device"] == "a CPU"
