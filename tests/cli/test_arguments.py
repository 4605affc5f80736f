"""Arguments are checked before torch is imported, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs each command of a list, and prints its exit code, its messages and whether torch was imported by then.
PROBE = """
import json, sys
from typer.testing import CliRunner
from kamera_agent.cli import app
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments)
    print(json.dumps([done.exit_code, done.output, "torch" in sys.modules]))
"""


def probe(*commands: list[str]) -> list[tuple[int, str, bool]]:
    command = [sys.executable, "-c", PROBE, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A folder with a file that is no image."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "notes.txt").write_text("")
    return str(tmp_path / "clip")


def test_wrong_arguments_are_answered_without_torch(tmp_path: Path, clip: str) -> None:
    file, nothing = tmp_path / "file", str(tmp_path / "nothing")
    file.write_text("mine")
    (tmp_path / "trace.jsonl").write_text("")
    # The command, and a part of the message.
    cases = [
        (["stats", nothing], "holds no store"),
        (["ls", str(file)], "is a file"),
        (["verify", nothing], "holds no store"),
        (["verify", "redis://host/0"], "works on the folder of a store"),
        (["demo", "--store", "s3://bucket/demo"], "works on the folder of a store"),
        (["ask", "Where?"], "No image or clip"),
        (["ask", nothing + ".png", "Where?"], "nothing.png"),
        (["ask", clip, "Where?"], "holds no images"),
        (["ask", clip, "Where?", "--fps", "0"], "--fps"),
        (["ask", clip, "Where?", "--keep-last", "-1"], "--keep-last"),
        (["ask", clip, "Where?", "--store", str(file)], "is a file"),
        (["ask", clip, "Where?", "--store", "redis://host/0", "--store", str(file)], "is a file"),
        (["ask", clip, "Where?", "--model", nothing], "Cannot load"),
        (["ask", clip, "--keep", "1"], "--keep"),
        (["doctor", nothing], "Cannot load"),
        (["serve", nothing], "Cannot load"),
        (["serve", "pocket", "--store", str(file)], "is a file"),
        (["serve", "pocket", "--host", "0.0.0.0"], "Others can reach"),
        (["serve", "pocket", "--port", "70000"], "--port"),
        (["serve", "pocket", "--drop", "2"], "Give --keep-last"),
        (["serve", "pocket", "--keep-last", "2", "--image-tokens", "9"], "Give --keep-last"),
        (["serve", "pocket", "--keep-last", "-1"], "use 0 or more"),
        (["serve", "pocket", "--api-key-file", nothing], "cannot be read"),
        (["demo", "--out", str(file)], "Nothing can be written"),
        (["demo", "--out", nothing, "--store", str(file)], "is a file"),
        (["report", nothing], "cannot be read"),
        (["report", str(tmp_path / "trace.jsonl"), "--out", str(tmp_path)], "is a folder"),
        (["show", "ab", nothing], "holds no store"),
        (["export", str(file), nothing], "holds no store"),
        (["import", nothing, str(tmp_path / "new")], "no file at"),
        (["--version"], "kamera "),
        (["ask", "--help"], "--fps"),
    ]
    for (command, message), (exit_code, output, torch) in zip(cases, probe(*(case[0] for case in cases)), strict=True):
        assert message in " ".join(output.split()), command
        assert bool(exit_code) != (command[-1] in ("--version", "--help")), command
        assert not torch, command
    assert not (tmp_path / "nothing").exists()


def test_importing_the_command_reads_no_environment(tmp_path: Path) -> None:
    """The same process, with another KAMERA_HOME at each use."""
    probe_home = """
import os
from kamera_agent.cli.arguments import check_store
from kamera_agent.config import DEFAULT_STORE
for home in ("a", "b"):
    os.environ["KAMERA_HOME"] = home
    print(check_store(DEFAULT_STORE))
"""
    done = subprocess.run([sys.executable, "-c", probe_home], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["a", "b"]
