"""decode_image on what it cannot use: the message says why, and nothing but ImageError comes out."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encode, noise
from PIL import Image

from kamera_agent.errors import ImageError
from kamera_agent.vision.image import decode_image, num_pixels


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "NoneType"),
        (3, "int"),
        ([[1, 2], [3, 4]], "list"),
        (np.zeros((4, 4, 3)), "float64"),
        (np.zeros((4, 4), dtype=bool), "bool"),
        (np.zeros((4, 4, 5), dtype=np.uint8), r"\[4, 4, 5\]"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"\[4, 4, 2\]"),
        (np.zeros(4, dtype=np.uint8), r"\[4\]"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), r"\[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "no pixels"),
        (np.zeros((4, 0), dtype=np.uint8), "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.new("I", (4, 4)), "mode I"),
        (b"", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        ("no/such/picture.png", "No such file"),
        (".", "Is a directory"),
        ("nul\0byte.png", "null byte"),
        ("iVBORw0KGgo" * 1000, "11002 characters"),
    ],
)
def test_unusable_source_is_explained(source: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(source)


@pytest.mark.parametrize("form", ["PNG", "BMP", "JPEG", "WEBP", "GIF", "TIFF"])
def test_truncated_file_is_explained(form: str) -> None:
    data = encode(Image.fromarray(noise(64, 64, 3)), form)
    with pytest.raises(ImageError, match=r"damaged|not an image"):
        decode_image(data[: len(data) // 2])


def test_truncated_file_opened_by_the_caller_is_explained() -> None:
    data = encode(Image.fromarray(noise(64, 64, 3)), "PNG")
    with Image.open(io.BytesIO(data[:2000])) as image, pytest.raises(ImageError, match="mode RGB"):
        decode_image(image)


def png_that_claims(width: int, height: int) -> bytes:
    def block(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = block(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + block(b"IDAT", zlib.compress(b"")) + block(b"IEND", b"")


# Pillow only warns below twice its limit, and raises above.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(9_400, 9_400), (1, 80_000_000), (10_000, 10_000), (60_000, 60_000)])
def test_decompression_bomb_is_refused(width: int, height: int) -> None:
    with pytest.raises(ImageError, match=r"too large.*MAX_IMAGE_PIXELS"):
        decode_image(png_that_claims(width, height))
    assert num_pixels(png_that_claims(width, height)) == 0


def test_pixels_are_counted_without_being_decoded() -> None:
    assert num_pixels(png_that_claims(5_000, 600)) == num_pixels(np.zeros((600, 5_000, 3), np.uint8)) == 3_000_000
    assert num_pixels(b"no image") == 0


def test_a_screen_of_8k_is_not_too_large() -> None:
    assert decode_image(Image.new("L", (7680, 4320))).shape == (4320, 7680, 3)


def test_size_limit_can_be_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (20, 20))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="20x20"):
        decode_image(image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_image(image).shape == (20, 20, 3)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["PNG", "BMP", "JPEG", "WEBP", "GIF", "TIFF"]),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4),
)
def test_damaged_bytes_decode_or_raise_image_error(form: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(encode(Image.fromarray(noise(12, 17, 3)), form))
    for place, flip in flips:
        data[place % len(data)] ^= flip
    try:
        pixels = decode_image(data)
    except ImageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    assert pixels.size > 0
