"""What of a message list a model is shown: the screenshots in sight, in the order in which they were taken."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from langchain_core.messages import BaseMessage, ToolMessage

LOOK_BACK = "look_back"


def in_sight(messages: Sequence[BaseMessage]) -> list[bytes]:
    """PNGs of the screenshots that a message list shows, oldest first.

    One that look_back brought back stands where it stood when it was taken: what is last is what is now. It stays in
    sight until the next screenshot.
    """
    shown: dict[int, bytes] = {}
    again: dict[int, bytes] = {}
    step = 0
    for message in messages:
        if not isinstance(message, ToolMessage):
            continue
        if message.name == LOOK_BACK:
            again |= _looked_back(message)
            continue
        step, again = step + 1, {}
        if pixels := [*_pixels(message)]:
            shown[step] = pixels[0]
    return [data for _, data in sorted((shown | again).items())]


def _looked_back(message: ToolMessage) -> dict[int, bytes]:
    """A text tells the step of the screenshot behind it; where there is no such step, a text is all there is."""
    pixels = [*_pixels(message)]
    told = [block["text"] for block in message.content_blocks if block["type"] == "text"] if pixels else []
    return {int(text.strip("Step :")): data for text, data in zip(told, pixels, strict=True)}


def _pixels(message: ToolMessage) -> Iterator[bytes]:
    for block in message.content_blocks:
        if block["type"] == "image" and "base64" in block:
            yield base64.b64decode(block["base64"])
