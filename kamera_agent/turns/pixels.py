"""The pixels that a request may have decoded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from kamera_agent.errors import InputError
from kamera_agent.vision.image import num_pixels
from kamera_agent.window.content import Content, ImageContent

# 268 million: 129 screens of 1920x1080, which take 805 MB. A file of 100 kB can ask for an eighth of it.
MAX_PIXELS = 1 << 28


def check_pixels(contents: Iterable[Content | str]) -> None:
    """Check that the images among the contents may be decoded, all of them: they are held together.

    Reads their headers only. Raises InputError.
    """
    images = [cast(Any, content.image) for content in contents if isinstance(content, ImageContent)]
    total = sum(map(num_pixels, images))
    if total > MAX_PIXELS:
        raise InputError(
            f"The {len(images)} new images of a request have {total:,} pixels together, and {MAX_PIXELS:,} are decoded "
            "at most; send smaller ones, or add them in several requests."
        )
