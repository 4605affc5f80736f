"""A process that had an engine ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# As in a notebook: the loop is not running when the engine is ended.
PROGRAM = """
import asyncio, gc, sys

from runs import ENGINE, MODEL

from kamera_vllm import VllmKamera

if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    kamera = loop.run_until_complete(VllmKamera.start(MODEL, sys.argv[1], engine={**ENGINE, "dtype": "float32"}))
    kamera.shutdown()
    loop.close()
    # Where a socket is open, this waits for ever.
    del kamera, loop
    gc.collect()
"""


@pytest.mark.timeout(300)
def test_a_process_ends_after_shutdown_outside_of_the_loop(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "store")]
    # It imports from here.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(command, env=environment, timeout=240, check=True)
