"""Small pictures and clips with known content."""

import io
import struct
import zlib
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


def write_png(row: bytes, width: int, bits: int, colours: int, transparent: bytes = b"") -> bytes:
    """A PNG one pixel high, byte by byte. colours: 0 grey, 2 RGB, 4 grey with alpha. transparent: its tRNS chunk."""
    header = struct.pack(">IIBBBBB", width, 1, bits, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    written = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
        if body or name == b"IEND"
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def write_clip(path: Path, pictures: Iterable[int | Pixels], fps: float = 10.0, codec: str = "MJPG") -> Path:
    """Write pictures [H, W, 3] BGR, or plain grey of the level given, as frames of 64x48."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.broadcast_to(np.uint8(picture), (48, 64, 3)).copy())
    writer.release()
    return path
