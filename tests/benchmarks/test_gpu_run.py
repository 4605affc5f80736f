"""One run of everything that needs a GPU: what a part does to the others, and to the result file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import LAST_LINES, ROOT, Part, parts, run_all

JSON_LINE = 'print("a line"); print(\'{"ms": 1.5}\'); print("Bye")'
SLOW = "import time; print('started', flush=True); time.sleep(60)"


def script(text: str, limit_s: float = 60) -> Part:
    return Part([sys.executable, "-c", text], limit_s)


def outcomes(path: Path, **some: Part) -> dict[str, Any]:
    run_all(some, {"device": "none"}, path)
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def test_a_part_that_fails_or_takes_too_long_leaves_the_others(tmp_path: Path) -> None:
    result = outcomes(
        tmp_path / "new" / "gpu.json",
        broken=script(f"for n in range({LAST_LINES + 50}): print(n)\nraise SystemExit(3)"),
        slow=script(SLOW, limit_s=2),
        tests=script("print('3 passed')"),
        measured=script(JSON_LINE),
    )
    assert list(result) == ["broken", "slow", "tests", "measured", "conditions"]
    assert result["broken"]["error"] == "exit status 3"
    assert result["broken"]["last_lines"] == [str(n) for n in range(50, LAST_LINES + 50)]
    assert result["slow"]["error"] == "stopped at its limit of 2 s"
    assert result["slow"]["last_lines"] == ["started"]
    assert result["slow"]["seconds"] < 60
    assert result["tests"]["result"] == "3 passed"
    assert result["measured"]["result"] == {"ms": 1.5}
    assert result["conditions"] == {"device": "none"}


def test_the_result_file_is_written_after_every_part(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    result = outcomes(path, first=script(JSON_LINE), second=script(f"print(open({str(path)!r}).read().count('1.5'))"))
    assert result["second"]["result"] == "1"


def test_only_a_run_without_failures_passes(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    assert run_all({"good": script(JSON_LINE)}, {}, path)
    assert not run_all({"bad": script("raise SystemExit(1)"), "good": script(JSON_LINE)}, {}, path)


def test_the_parts_take_eight_minutes_at_most_and_name_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    found = parts()
    assert list(found) == ["tests", "kernels", "window", "decode", "memcheck"]
    assert sum(part.limit_s for part in found.values()) <= 480
    marked = {str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/*.py") if "mark.gpu" in path.read_text()}
    assert marked - {str(Path(__file__).relative_to(ROOT))} <= set(found["tests"].command)


def test_memcheck_has_tests_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    command = parts()["memcheck"].command
    done = subprocess.run(
        [*command[command.index(sys.executable) :], "--collect-only"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line for line in done.stdout.splitlines() if "test_rebuild" in line]
    assert len(names) == 6
    assert all(any(kind in name for name in names) for kind in ("v1x512", "int8", "interleaved", "half", "gaps"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_the_run_says_what_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "CUDA device" in done.stderr
