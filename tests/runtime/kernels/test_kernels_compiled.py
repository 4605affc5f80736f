"""The kernels, compiled for GPUs that need not be present."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAPABILITIES = (80, 90, 100)
FOLDER = Path(__file__).parent


@pytest.mark.timeout(300)  # 30 s on a core of its own
def test_no_register_is_spilled(tmp_path: Path) -> None:
    """Every kernel, for Ampere, Hopper and Blackwell: stack and local memory are empty."""
    pytest.importorskip("triton")
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parents[2]), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(FOLDER / "compile_ahead.py"), *map(str, CAPABILITIES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    usages = json.loads(done.stdout)
    assert {(usage["kernel"], usage["capability"]) for usage in usages} == {
        (kernel, capability) for kernel in ("relocate", "rebuild") for capability in CAPABILITIES
    }
    assert all(usage["reg"] > 0 for usage in usages)
    spilled = [usage for usage in usages if usage["stack"] or usage["local"]]
    assert not spilled, spilled
