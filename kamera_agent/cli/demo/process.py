"""Running a part of the trace in a separate process."""

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

# The checkpoint is on disk, so nothing may wait for a network.
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def run_part(part: Part) -> Iterator[dict[str, Any]]:
    """Run a part, and yield the JSON lines that it prints. The process ends when this iterator is closed.

    Raises KameraError with the last line of its errors when it fails.
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
            lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise KameraError(f"Process {part.process} of the demo failed: {lines[-1]}")
