"""A clip whose frames say their number by their brightness."""

from pathlib import Path

import pytest
from pictures import write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Thirty frames at 10 per second; frame i is grey of level 8·i."""
    return write_clip(tmp_path / "clip.avi", range(0, 240, 8))
