"""Writes the page of the `kamera` command out of the command itself."""

import subprocess
import sys
from typing import Any

from mkdocs.structure.files import File, Files

COMMAND = ["typer", "kamera_agent.cli", "utils", "docs", "--name", "kamera", "--title", "Command line"]


def on_files(files: Files, config: Any) -> Files:
    """Add cli.md."""
    done = subprocess.run([sys.executable, "-m", *COMMAND], capture_output=True, text=True, check=True)
    files.append(File.generated(config, "cli.md", content=done.stdout))
    return files
