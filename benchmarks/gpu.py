"""Everything that needs a CUDA device, in one run of at most eight minutes.

    make gpu RESULT=FILE

tests     the tests with the mark gpu
kernels   benchmarks.kernels on CUDA
window    benchmarks.gpu_window, three rounds
decode    benchmarks.decode on the large model, two rounds
memcheck  compute-sanitizer over six of the kernels' tests; skipped where it is not on the PATH

Every part is a process with a time limit. The result file, one JSON object, is written after each of them: its last
line of output for the tests, its JSON for a benchmark, and for a part that fails the reason and its last lines.

The exit status is 0 if no part failed, 1 if one did, and 2 without a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from time import perf_counter
from typing import Any, NamedTuple

import torch

from benchmarks.command import versions

ROOT = Path(__file__).parents[1]
KERNEL_TESTS = "tests/runtime/kernels/test_kernels_gpu.py"
# Everything runs many times slower under memcheck. 63 tokens are less than a tile, in GQA and MLA, halves and
# neighbouring pairs, the KV dtype and int8. The names come as they run.
CHECKED = KERNEL_TESTS, "-vv", "-k", "rebuild and 63x and torch.bfloat16 and default"
# Lines of output that the result file keeps of a part that failed.
LAST_LINES = 100


class Part(NamedTuple):
    """A command with its time limit in seconds. environment: variables that it needs."""

    command: Sequence[str]
    limit_s: float
    environment: Mapping[str, str] = {}


def parts() -> dict[str, Part]:
    """The parts by name, in the order in which they run."""
    tests = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/**/test_*.py")) if _needs_gpu(path)]
    found = {
        "tests": Part(_pytest(*tests), 115),
        "kernels": Part(_benchmark("kernels", "--only", "cuda", "--rounds", "5"), 50),
        "window": Part(_benchmark("gpu_window", "--rounds", "3"), 130),
        "decode": Part(_benchmark("decode", "--large", "--rounds", "2", "--tokens", "32"), 110),
    }
    if sanitizer := shutil.which("compute-sanitizer"):
        # Calls that PyTorch makes to find out what a device can do fail by design.
        check = [sanitizer, "--tool", "memcheck", "--report-api-errors", "no", "--error-exitcode", "9"]
        # Tensors in one block of PyTorch's allocator could overrun each other unseen.
        found["memcheck"] = Part([*check, *_pytest(*CHECKED)], 75, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    return found


def _needs_gpu(path: Path) -> bool:
    return "pytest.mark.gpu" in path.read_text("utf-8")


def _pytest(*arguments: str) -> list[str]:
    # A warning that another version of a library gives is no failure here, nor is a setting of a missing plug-in.
    lenient = ["-W", "default", "-o", "addopts="]
    return [sys.executable, "-m", "pytest", "-q", "--tb=short", *lenient, "-m", "gpu", *arguments]


def _benchmark(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", "--json", *arguments]


def run(part: Part) -> dict[str, Any]:
    """Run a part, and show its output as it comes. Returns its outcome, with `error` if it failed."""
    start, lines = perf_counter(), []
    with subprocess.Popen(
        part.command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        timer = Timer(part.limit_s, _kill, [process])
        timer.start()
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
        code = process.wait()
        too_late = not timer.is_alive()
        timer.cancel()
    outcome: dict[str, Any] = {"seconds": round(perf_counter() - start, 1)}
    if code:
        reason = f"stopped at its limit of {part.limit_s:g} s" if too_late else f"exit status {code}"
        return outcome | {"error": reason, "last_lines": lines[-LAST_LINES:]}
    return outcome | {"result": _result(lines)}


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _result(lines: Sequence[str]) -> Any:
    """The last line that is a JSON object; without one, the last line that is not empty."""
    for line in reversed(lines):
        if line.startswith("{"):
            with suppress(json.JSONDecodeError):
                return json.loads(line)
    return next((line for line in reversed(lines) if line), "")


def run_all(some: Mapping[str, Part], conditions: Mapping[str, Any], path: Path) -> bool:
    """Run parts one after the other, and write the result file after each. Returns whether none failed."""
    outcomes: dict[str, Any] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, part in some.items():
        print(f"== {name}: {' '.join(part.command)}", flush=True)
        outcomes[name] = run(part)
        path.write_text(json.dumps({**outcomes, "conditions": dict(conditions)}, indent=1) + "\n", "utf-8")
    for name, outcome in outcomes.items():
        print(f"{name:9}{outcome['seconds']:7.1f} s  {outcome.get('error', 'passed')}")
    print(f"Written to {path}")
    return not any("error" in outcome for outcome in outcomes.values())


def main() -> None:
    today = datetime.now(UTC).date().isoformat()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=ROOT / f"benchmarks/results/{today}-gpu-all.json")
    parser.add_argument("--only", nargs="+", help="names of the parts to run")
    options = parser.parse_args()
    found = parts()
    if unknown := set(options.only or ()) - set(found):
        parser.error(f"there is no {', '.join(sorted(unknown))} here; there are {', '.join(found)}")
    if not torch.cuda.is_available():
        print("make gpu needs a CUDA device, and this machine has none.", file=sys.stderr)
        sys.exit(2)
    conditions = {
        "device": torch.cuda.get_device_name(),
        "capability": torch.cuda.get_device_capability(),
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        **versions(),
        "date": today,
    }
    some = {name: part for name, part in found.items() if name in (options.only or found)}
    sys.exit(not run_all(some, conditions, options.result.absolute()))


if __name__ == "__main__":
    main()
