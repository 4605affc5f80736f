"""Recorded traces of agents: the windows of screenshots that they asked about, step by step.

    python -m benchmarks.fleet.traces

records the windows of the screen agent (examples/ui_agent, in Chromium) into benchmarks/fleet/ui_agent.json. The day of
`kamera demo` is the other trace; the package has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from kamera_agent.cli.demo.scale import SCALES
from kamera_agent.cli.demo.trace import follow

# The windows of an agent, each a tuple of the numbers of the screens in it, oldest first.
Trace = Sequence[tuple[int, ...]]

FILE = Path(__file__).with_name("ui_agent.json")
# As the screen agent does. The demo keeps twelve.
KEEP_LAST = 3


def recorded() -> dict[str, Trace]:
    """All traces, by name."""
    shop = [tuple(window) for window in json.loads(FILE.read_text("utf-8"))]
    day = follow(SCALES["day"].day, KEEP_LAST)
    return {"ui_agent": shop, "demo": numbered([turn.window for turn in day])}


def numbered(windows: Sequence[Sequence[object]]) -> Trace:
    """Windows with a number for each screen, in the order in which they are first seen."""
    numbers: dict[object, int] = {}
    return [tuple(numbers.setdefault(screen, len(numbers)) for screen in window) for window in windows]


def _record() -> Trace:
    from benchmarks.agent import Recorder
    from examples.ui_agent.episode import play

    recorder = Recorder()
    asyncio.run(play(recorder))
    return numbered([screens for screens, _ in recorder.windows])


if __name__ == "__main__":
    FILE.write_text(json.dumps(_record()) + "\n")
