"""What a caller puts into a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class TextContent:
    """A text. role: "system", "user", "assistant" or whatever the chat template knows.

    new_turn: begins a turn of its own, even behind one of the same role.
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
    """Video frames that form one chunk: a sequence of images or ndarray [N, H, W, 3]; one timestamp in seconds each."""

    frames: Any
    timestamps: Sequence[float] | None = None
    role: str = "user"
    new_turn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class DocumentContent:
    """A text that forms one chunk: stored, moved and recalled as images are, where a TextContent is computed anew."""

    text: str
    role: str = "user"
    new_turn: bool = False


Content = TextContent | ImageContent | FramesContent | DocumentContent
