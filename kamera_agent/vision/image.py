"""Decoding: from any form of a picture to the pixels that are fingerprinted and encoded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from kamera_agent.errors import ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]
ImageSource: TypeAlias = "Image.Image | Pixels | str | os.PathLike[str] | bytes | bytearray | memoryview"

# Raster formats only: Pillow passes PostScript to an external interpreter.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# A screen of 8K has 33 million pixels. Pillow's own limit is 89 million, which a file of 260 kB can ask for; decoding
# them takes 1.5 GB. A limit that a program has set itself holds instead.
MAX_PIXELS, PILLOWS_LIMIT = 1 << 25, 89_478_485

# Levels of 8 bits between two levels of a PNG's grey, by Pillow's raw mode.
GREY_STEPS = {"L;2": 85, "L;4": 17}

ARRAY_FORMS = "uint8 [H, W, 3] RGB, [H, W, 4] RGBA, [H, W, 1] or [H, W] grey"


def decode_image(source: ImageSource) -> Pixels:
    """Decode a picture to the pixels that a person would see.

    EXIF orientation is applied, transparent pixels are blended with white, and 16-bit grey keeps its high
    byte. An animation yields its first frame. Colour profiles are not applied.

    source: PIL image; array in one of ARRAY_FORMS; path; or the bytes of a file in one of FORMATS.
        It is neither modified nor kept.

    Returns [H, W, 3] uint8 RGB, C-contiguous, in memory of its own.
    Raises ImageError when the source is of another type or format, empty, damaged, or suspiciously large.
    """
    if isinstance(source, np.ndarray):
        return _decode_array(source)
    if isinstance(source, Image.Image):
        return _decode_pil(source, f"PIL image of mode {source.mode}")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_file(bytes(source), f"{len(source)} bytes")
    if isinstance(source, (str, os.PathLike)):
        return _decode_file(_read(source), short_path(source))
    raise ImageError(f"cannot decode a {type(source).__name__} as an image; pass a PIL image, array, path or bytes")


def _decode_array(array: npt.NDArray[np.generic]) -> Pixels:
    if array.dtype != np.uint8:
        raise ImageError(f"image array is {array.dtype}; scale it to 0..255 and convert it to uint8")
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(f"image array has shape {list(array.shape)}; pass {ARRAY_FORMS}")
    if array.size == 0:
        raise ImageError(f"image array of shape {list(array.shape)} has no pixels")
    if channels == 3:
        return np.array(array, dtype=np.uint8, order="C", subok=False)
    return _flatten(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(
            f"cannot read image file {short_path(path)}: {reason}; pass a local path or the bytes"
        ) from error


def short_path(path: str | os.PathLike[str]) -> str:
    """A path in quotes, cut where it is too long for a message: a likely mistake is to pass a whole file in base64."""
    text = repr(os.fspath(path))
    return text if len(text) <= 200 else f"{text[:60]}...' ({len(text)} characters)"


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as an image in one of FORMATS does. False for a file that cannot be read."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Image.DecompressionBombError:
        return True
    except (OSError, ValueError):
        return False


def num_pixels(source: bytes | Pixels) -> int:
    """Pixels of an encoded image, by its header, or of decoded ones; 0 where decode_image() decodes nothing."""
    if isinstance(source, np.ndarray):
        height, width, _ = source.shape
        return int(height * width)
    try:
        with _explained(f"{len(source)} bytes"), Image.open(io.BytesIO(source), formats=FORMATS) as image:
            _check_size(image)
            return image.width * image.height
    except ImageError:
        return 0


def _decode_file(data: bytes, name: str) -> Pixels:
    with _explained(name), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _decode_pil(image, name)


def _decode_pil(image: Image.Image, name: str) -> Pixels:
    if image.width == 0 or image.height == 0:
        raise ImageError(f"image of {image.width}x{image.height} has no pixels")
    with _explained(name):
        _check_size(image)
        transparent = _transparent_colour(image)
        upright = ImageOps.exif_transpose(image)
        if transparent is not None:
            upright.info["transparency"] = transparent
        return _flatten(_to_eight_bit(upright))


def _check_size(image: Image.Image) -> None:
    # Pillow itself only warns below twice its limit, and does not check an image that the caller opened.
    limit = MAX_PIXELS if Image.MAX_IMAGE_PIXELS == PILLOWS_LIMIT else Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")


def _transparent_colour(image: Image.Image) -> Any:
    """The colour that a PNG declares transparent, as its pixels have it here; None where there is none, or many.

    Pillow brings the pixels of every bit depth to 8 bits, but leaves this colour as the file states it.
    """
    colour = image.info.get("transparency")
    # A loaded image no longer has the raw mode, which names the depth.
    rawmode = image.tile[0][3] if isinstance(image, PngImageFile) and image.tile else ""
    if isinstance(colour, int) and rawmode in GREY_STEPS:
        return colour * GREY_STEPS[rawmode]
    if isinstance(colour, tuple) and (rawmode == "RGB;16B" or max(colour) > 255):
        return tuple(value >> 8 for value in colour)
    return colour


def _flatten(image: Image.Image) -> Pixels:
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"), dtype=np.uint8, order="C")


def _to_eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ImageError(f"image of mode {image.mode} has no fixed white; scale it to 0..255 and convert it to L")
    if image.mode.startswith("I;16"):
        # Pillow's convert() clips these modes instead of scaling them, while it reduces 16-bit RGB to the high byte.
        grey = np.asarray(image)
        high = (grey >> 8).astype(np.uint8)
        if (transparent := image.info.get("transparency")) is None:
            return Image.fromarray(high)
        return Image.fromarray(np.dstack([high, np.where(grey == transparent, 0, 255).astype(np.uint8)]))
    # Premultiplied grey converts to grey with alpha only.
    return image.convert("LA") if image.mode == "La" else image


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn any error of a decoder into an ImageError that names the source."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        hint = "shrink it, or set PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise ImageError(f"image too large ({name}): {error}; {hint}") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"not an image in an accepted format ({name}); convert it to one of {', '.join(FORMATS)}"
        ) from error
    # On a damaged file, decoders raise almost anything: SyntaxError, struct.error, KeyError, ...
    except Exception as error:
        raise ImageError(f"cannot decode image ({name}): {error}; the file may be damaged or cut short") from error
