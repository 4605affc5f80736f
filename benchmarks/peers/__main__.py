"""The 30-step agent trace of benchmarks.agent, through serving engines with and without our plug-ins, and through ours.

    python -m benchmarks.peers --json [--steps 30] [--width 640]

Same weights (a Qwen2.5-VL of about 60 million parameters, seeded, float32), same machine, one thread each. Every arm is
a process of its own, in the environment of its engine; `make engines` sets these up, and one that is missing is left
out. All arms are warmed up with windows of other pictures. Then they take every step one after the other, in an order
that rotates from step to step; what goes on beside answers is finished before the next one begins.

own             Kamera with default settings, in memory, healing nothing beside the others. It refreshes spans that are
                stale, or computes them, and so computes more than an engine, which keeps their KV as it is
sglang          SGLang with its prefix cache and its cache of encoder outputs
sglang+kamera   the same with kamera_sglang, over a store in a folder
vllm            vLLM with its prefix cache and its cache of encoder outputs
vllm+kamera     the same with kamera_vllm, over a store in a folder

tokens   of prompts, computed before the first token of the answer: of the engines by their own count
ttft_ms  from the call with a new list of screenshots until the first token of the answer, preprocessing included

Sums over all steps, and by event; see benchmarks.agent. An engine's kernels decide about its times: SGLang runs here on
plain operators of PyTorch, without its own kernels for CPUs, which need AMX. Its vision encoder then makes a mask over
all patches of a prompt, which takes a minute for three screenshots of 1280x720; so they are half as wide here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.command import parser_of, show, versions
from benchmarks.peers.arm import ARMS, MARK
from benchmarks.peers.checkpoint import write_checkpoint
from benchmarks.peers.trace import Step, read_trace, write_trace

ROOT = Path(__file__).parents[2]
SGLANG, VLLM = (ROOT / f"build/{name}/bin/python" for name in ("sglang", "vllm"))
PYTHONS = {
    "own": Path(sys.executable),
    "sglang": SGLANG,
    "sglang+kamera": SGLANG,
    "vllm": VLLM,
    "vllm+kamera": VLLM,
}
PACKAGES = (ROOT, ROOT / "engines/kamera_sglang", ROOT / "engines/kamera_vllm")
WARM_UPS = 3
PATIENCE_S = 30.0
Figures = dict[str, float]


class Arm:
    """The process of an arm."""

    def __init__(self, name: str, checkpoint: Path) -> None:
        paths = os.pathsep.join(map(str, PACKAGES))
        self._process = subprocess.Popen(
            [PYTHONS[name], "-m", "benchmarks.peers.arm", name, str(checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        assert self._hear() == "ready"

    def take(self, step: Step) -> Figures:
        """The figures of a step."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"screens": step.screens, "question": step.question}) + "\n")
        self._process.stdin.flush()
        figures: Figures = self._hear()
        assert self._hear() == "rested"
        return figures

    def close(self) -> None:
        """End the process. An engine ends its own; one that does not is killed, and its processes go with it."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"an arm ended with status {self._process.wait()}")


def warm_ups(folder: Path, width: int) -> list[Step]:
    """Windows of pictures that no step shows: new ones, one that moves, and one that comes back."""
    rng, paths = np.random.default_rng(0), []
    for number in range(WARM_UPS + 2):
        paths.append(str(folder / f"warm-up-{number}.png"))
        Image.fromarray(rng.integers(0, 256, (width * 9 // 16, width, 3), np.uint8)).save(paths[-1])
    windows = [paths[number : number + 3] for number in range(WARM_UPS)]
    return [Step(tuple(window), "what is it?", "") for window in (*windows, windows[0])]


def measure(arms: Mapping[str, Arm], steps: Sequence[Step]) -> list[dict[str, Figures]]:
    """The figures of every step, by arm."""
    names, measured = list(arms), []
    for number, step in enumerate(steps):
        first = number % len(names)
        measured.append({name: arms[name].take(step) for name in names[first:] + names[:first]})
        row = "  ".join(
            f"{name} {measured[-1][name]['tokens']:5.0f} {measured[-1][name]['ms']:7.0f} ms" for name in names
        )
        print(f"{number + 1:3} {step.event:9} {row}", flush=True)
    return measured


def sums(measured: Sequence[Mapping[str, Figures]]) -> dict[str, Figures]:
    """Sums over steps, by arm."""
    return {
        name: {
            "tokens": round(sum(figures[name]["tokens"] for figures in measured)),
            "ttft_ms": round(sum(figures[name]["ms"] for figures in measured)),
        }
        for name in measured[0]
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=30, help="steps of the agent (default 30)")
    parser.add_argument("--width", type=int, default=640, help="of the screenshots, in pixels (default 640)")
    options = parser.parse_args()
    names = [name for name in ARMS if PYTHONS[name].exists()]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, trace = Path(folder) / "checkpoint", Path(folder) / "trace"
        checkpoint.mkdir()
        trace.mkdir()
        write_checkpoint(checkpoint)
        write_trace(trace, options.steps, options.width)
        steps, arms = read_trace(trace), dict[str, Arm]()
        try:
            for name in names:
                arms[name] = Arm(name, checkpoint)
                for step in warm_ups(trace, options.width):
                    arms[name].take(step)
            measured = measure(arms, steps)
        finally:
            for arm in arms.values():
                arm.close()
    events = defaultdict[str, list[dict[str, Figures]]](list)
    for step, figures in zip(steps, measured, strict=True):
        events[step.event].append(figures)
    conditions = {
        "steps": len(steps),
        "width": options.width,
        "dtype": "float32",
        "threads": 1,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **versions(),
    }
    by_event = {event: {"steps": len(some), **sums(some)} for event, some in events.items()}
    show({**sums(measured), "events": by_event, "conditions": conditions}, options.json)


if __name__ == "__main__":
    main()
