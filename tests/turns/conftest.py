"""One pocket model for all tests of turns; they keep apart by conversation."""

from collections.abc import Iterator

import pytest

from kamera_agent import Kamera


@pytest.fixture(scope="package")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera
