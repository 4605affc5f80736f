"""The contents that a caller puts into a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class TextContent:
    """A text.

    text: may be empty where it begins a turn, which is then a turn without words.
    role: of its turn; one that the model's chat template knows.
    new_turn: whether it begins a turn even after a content of the same role.
    """

    text: str
    role: str = "user"
    new_turn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ImageContent:
    """An image: PIL image, ndarray [H, W, 3] uint8 RGB ([H, W, 4] and [H, W] are converted), path or encoded bytes."""

    image: Any
    role: str = "user"
    new_turn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class FramesContent:
    """Video frames that form one chunk: the path of a clip, Frames, a sequence of images or ndarray [N, H, W, 3].

    timestamps: seconds, one per frame; not for a clip or Frames, which have their own.
    fps: frames to keep per second of a clip, which is read again wherever the content is used; 2 by default. Other
        frames it spaces 1/fps seconds apart. Not beside timestamps.
    """

    frames: Any
    timestamps: Sequence[float] | None = None
    role: str = "user"
    new_turn: bool = False
    fps: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DocumentContent:
    """A text that forms one chunk. It is stored and recalled as an image is; a TextContent is not stored."""

    text: str
    role: str = "user"
    new_turn: bool = False


Content = TextContent | ImageContent | FramesContent | DocumentContent
