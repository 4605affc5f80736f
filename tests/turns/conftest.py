"""A pocket model for every test of turns: what one test saw is no evidence in another."""

from collections.abc import Iterator

import pytest

from kamera_agent import Kamera


@pytest.fixture
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera
