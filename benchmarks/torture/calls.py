"""A process whose system calls are recorded, or fail: see calls.c."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("calls.c")


def is_possible() -> bool:
    """Whether this machine can put a library of ours between a process and its system calls."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def run_below(root: Path, module: str, arguments: Sequence[str], log: Path | None = None) -> str:
    """Run a module in a process whose calls on files below a folder go through calls.c. Returns what it prints.

    log: where the changes of these files are recorded. Raises CalledProcessError if the process fails.
    """
    library = root.with_suffix(".so")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "TORTURE_ROOT": str(root)}
    if log is not None:
        environment["TORTURE_LOG"] = str(log)
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
