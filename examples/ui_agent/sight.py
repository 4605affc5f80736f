"""What of a message list a model is shown: the screenshots in sight."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from langchain_core.messages import BaseMessage


def in_sight(messages: Sequence[BaseMessage]) -> list[bytes]:
    """PNGs of the screenshots that a message list shows, oldest first."""
    return [
        base64.b64decode(block["base64"])
        for message in messages
        for block in message.content_blocks
        if block["type"] == "image" and "base64" in block
    ]
