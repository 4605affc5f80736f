"""The agent's packages are an extra: without them the error says what to install."""

import subprocess
import sys

import pytest

PROBE = """
import sys
sys.modules[{package!r}] = None
import kamera_agent
try:
    import kamera_agent.agent
except kamera_agent.MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
"""


@pytest.mark.parametrize("package", ["langchain", "llguidance"])
def test_a_missing_package_names_the_extra(package: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROBE.format(package=package)], capture_output=True, text=True)
    assert done.stdout == f"kamera_agent.agent needs {package}: pip install 'kamera-agent[agent]'.\n", done.stderr
