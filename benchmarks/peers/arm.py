"""An arm: one way of answering, in a process of its own, which takes its steps one by one.

    PYTHON -m benchmarks.peers.arm NAME CHECKPOINT

Reads a JSON object per line, with the screens and the question of a step, and writes one with its figures, after a mark
that no log line has.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.peers.trace import Step

MARK = "@@ "
# By name of an arm, its module, which has a function `start`, and whether our plug-in is used.
ARMS = {
    "own": ("benchmarks.peers.own", True),
    "sglang": ("benchmarks.peers.in_sglang", False),
    "sglang+kamera": ("benchmarks.peers.in_sglang", True),
    "vllm": ("benchmarks.peers.in_vllm", False),
    "vllm+kamera": ("benchmarks.peers.in_vllm", True),
}


class Answered(Protocol):
    """What an arm does."""

    def answer(self, step: Step) -> dict[str, float]:
        """The figures of a step: "tokens" computed before the first token of the answer, and "ms" until it came."""

    def rest(self) -> None:
        """Finish what goes on beside answers."""


def say(facts: object) -> None:
    print(MARK + json.dumps(facts), flush=True)


def main(name: str, checkpoint: str) -> None:
    torch.set_num_threads(1)
    module, with_kamera = ARMS[name]
    arm: Answered = import_module(module).start(Path(checkpoint), with_kamera)
    say("ready")
    for line in sys.stdin:
        facts = json.loads(line)
        say(arm.answer(Step(tuple(facts["screens"]), facts["question"], "")))
        arm.rest()
        say("rested")


if __name__ == "__main__":
    main(*sys.argv[1:])
