"""Running a part of the trace in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from kamera_agent.cli.demo.worker import Part
from kamera_agent.errors import KameraError

# The checkpoint lies on disk: nothing is asked of the network.
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def run_part(part: Part) -> Iterator[dict[str, Any]]:
    """What the process prints, line by line. It ends when this iterator is closed.

    Raises KameraError with its last words when it fails.
    """
    command = [sys.executable, "-m", "kamera_agent.cli.demo.worker", json.dumps(asdict(part))]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | OFFLINE
        ) as process,
    ):
        try:
            yield from map(json.loads, process.stdout or ())
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise KameraError(f"Process {part.process} of the demo failed: {said[-1]}")
