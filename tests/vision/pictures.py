"""Small pictures and clips with known content."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from kamera_agent.vision.image import Pixels


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write_clip(path: Path, pictures: Iterable[int | Pixels], fps: float = 10.0, codec: str = "MJPG") -> Path:
    """Write pictures [H, W, 3] BGR, or plain grey of the level given, as frames of 64x48."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.broadcast_to(np.uint8(picture), (48, 64, 3)).copy())
    writer.release()
    return path
