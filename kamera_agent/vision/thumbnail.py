"""Small pictures of images and frames."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

from kamera_agent.vision.image import Pixels


def thumbnail(pixels: Pixels, side: int) -> str:
    """A JPEG in base64 of pixels [H, W, 3], whose longer side has at most `side` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()
