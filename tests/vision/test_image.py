"""decode_image: every accepted form gives the pixels a person would see."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pictures import encode, noise, write_png
from PIL import Image

from kamera_agent.vision.image import Pixels, decode_image

# EXIF orientation -> the same turn with numpy. Rows and columns of the stored picture are axes 0 and 1.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def over_white(rgba: Pixels) -> npt.NDArray[np.float64]:
    """Reference compositing, in float."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("shape", [(1, 1), (1, 63), (100, 30), (30, 100), (217, 3)])
def test_every_lossless_form_gives_the_same_pixels(shape: tuple[int, int], tmp_path: Path) -> None:
    pixels = noise(*shape, 3)
    image = Image.fromarray(pixels)
    path = tmp_path / "picture.png"
    path.write_bytes(encode(image, "PNG"))
    forms: list[Any] = [pixels, image, path, str(path)]
    for form in ("PNG", "BMP", "TIFF", "PPM"):
        forms.append(encode(image, form))
    forms += [encode(image, "WEBP", lossless=True), bytearray(forms[4]), memoryview(forms[4])]
    for form in forms:
        np.testing.assert_array_equal(decode_image(form), pixels)


def test_jpeg_gives_what_pillow_decodes() -> None:
    data = encode(Image.fromarray(noise(40, 56, 3)), "JPEG", quality=60)
    np.testing.assert_array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("source", [noise(9, 7, 3)[::-1, ::2], noise(9, 7, 4), noise(9, 7), noise(9, 7, 1)])
def test_result_is_contiguous_rgb_and_owned(source: Any) -> None:
    before = decode_image(source)
    kept = before.copy()
    source[...] = 0
    assert before.dtype == np.uint8
    assert before.shape == (*source.shape[:2], 3)
    assert before.flags.c_contiguous
    assert before.flags.owndata
    assert before.flags.writeable
    np.testing.assert_array_equal(before, kept)


def test_later_change_of_a_pil_image_changes_nothing() -> None:
    image = Image.new("RGB", (5, 4), (1, 2, 3))
    pixels = decode_image(image)
    image.putpixel((0, 0), (200, 200, 200))
    assert (pixels == (1, 2, 3)).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    """1. Turn the decoded, unturned picture with numpy. 2. Decode the same file with its EXIF tag."""
    image = Image.fromarray(noise(24, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    plain = np.asarray(Image.open(io.BytesIO(encode(image, form, **options))).convert("RGB"))
    turned = decode_image(encode(image, form, exif=exif, **options))
    np.testing.assert_array_equal(turned, TURNS[orientation](plain))


@pytest.mark.parametrize("as_file", [True, False], ids=["png", "array"])
def test_rgba_lies_over_white(as_file: bool) -> None:
    rgba = noise(33, 21, 4)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    pixels = decode_image(encode(Image.fromarray(rgba), "PNG") if as_file else rgba)
    # Integer compositing rounds once per product: at most one level off.
    assert np.abs(pixels - over_white(rgba)).max() <= 1
    assert (pixels[0] == 255).all()
    np.testing.assert_array_equal(pixels[1], rgba[1, :, :3])


def test_grey_with_alpha_lies_over_white() -> None:
    la = noise(8, 9, 2)
    expected = over_white(np.dstack([la[..., :1].repeat(3, axis=2), la[..., 1:]]))
    assert np.abs(decode_image(Image.fromarray(la, "LA")) - expected).max() <= 1


def test_transparent_palette_entry_is_white() -> None:
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    pixels = decode_image(encode(image, "PNG", transparency=2))
    expected = [[[10, 20, 30], [40, 50, 60]], [[255, 255, 255], [100, 110, 120]]]
    np.testing.assert_array_equal(pixels, expected)


def test_transparent_colour_of_an_rgb_png_is_white() -> None:
    image = Image.new("RGB", (2, 1), (9, 8, 7))
    image.putpixel((1, 0), (1, 2, 3))
    pixels = decode_image(encode(image, "PNG", transparency=(9, 8, 7)))
    np.testing.assert_array_equal(pixels, [[[255, 255, 255], [1, 2, 3]]])


# Two pixels each, of which the first has the transparent colour.
TRANSPARENT = {
    "grey of 1 bit": (write_png(b"\x40", 2, 1, 0, struct.pack(">H", 0)), [255, 255, 255]),
    "grey of 2 bits": (write_png(b"\x60", 2, 2, 0, struct.pack(">H", 1)), [170, 170, 170]),
    "grey of 4 bits": (write_png(b"\x59", 2, 4, 0, struct.pack(">H", 5)), [153, 153, 153]),
    "grey of 8 bits": (write_png(b"\x05\x09", 2, 8, 0, struct.pack(">H", 5)), [9, 9, 9]),
    "grey of 16 bits": (write_png(struct.pack(">2H", 0x510, 0x511), 2, 16, 0, struct.pack(">H", 0x510)), [5, 5, 5]),
    "RGB of 8 bits": (write_png(bytes([1, 2, 3, 4, 5, 6]), 2, 8, 2, struct.pack(">3H", 1, 2, 3)), [4, 5, 6]),
    "RGB of 16 bits": (
        write_png(struct.pack(">6H", 0x901, 2, 3, 0x1FF, 0, 0), 2, 16, 2, struct.pack(">3H", 0x901, 2, 3)),
        [1, 0, 0],
    ),
    "grey with alpha of 16 bits": (write_png(struct.pack(">4H", 0x710, 0, 0x710, 0x8000), 2, 16, 4), [131, 131, 131]),
}


@pytest.mark.parametrize("opened", [False, True], ids=["bytes", "PIL image"])
@pytest.mark.parametrize(("data", "other"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_transparent_colour_of_any_depth_is_white(data: bytes, other: list[int], opened: bool) -> None:
    source = Image.open(io.BytesIO(data)) if opened else data
    np.testing.assert_array_equal(decode_image(source), [[[255, 255, 255], other]])


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_the_high_byte(form: str) -> None:
    grey = np.array([[0, 255, 256], [32768, 40000, 65535]], dtype=np.uint16)
    pixels = decode_image(encode(Image.fromarray(grey), form))
    np.testing.assert_array_equal(pixels, (grey // 256)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_are_converted_as_pillow_does(mode: str) -> None:
    image = Image.fromarray(noise(12, 10, 3)).convert(mode)
    np.testing.assert_array_equal(decode_image(image), np.asarray(image.convert("RGB")))


def test_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), (250, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 250))
    data = encode(first, "PNG", save_all=True, append_images=[second])
    assert (decode_image(data) == (250, 0, 0)).all()
