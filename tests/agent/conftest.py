"""One pocket model for all tests of the agent layer; they keep apart by conversation."""

import base64
from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kamera_agent import Kamera
from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.world import World


@pytest.fixture(scope="package")
def kamera() -> Iterator[Kamera]:
    with Kamera.pocket() as kamera:
        yield kamera


@pytest.fixture(scope="package")
def exact() -> Iterator[Kamera]:
    """Nothing but what a prefix cache may reuse."""
    with Kamera.pocket(fidelity="exact") as kamera:
        yield kamera


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """A screen of the pocket's world as PNG bytes, by seed."""

    def draw(seed: int) -> bytes:
        screen = World(np.random.default_rng(seed)).tell("links", 1)[0]
        buffer = BytesIO()
        Image.fromarray(draw_screen(screen)).save(buffer, "PNG")
        return buffer.getvalue()

    return draw


@pytest.fixture(scope="session")
def image_block(png: Callable[[int], bytes]) -> Callable[[int], dict[str, str]]:
    """LangChain's own block of such a screen."""
    return lambda seed: {"type": "image", "base64": base64.b64encode(png(seed)).decode(), "mime_type": "image/png"}
