"""The part of a message list that the model under test sees: the screenshots in sight."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from langchain_core.messages import BaseMessage


def in_sight(messages: Sequence[BaseMessage]) -> list[bytes]:
    """The screenshots in a message list as PNG, oldest first."""
    return [
        base64.b64decode(block["base64"])
        for message in messages
        for block in message.content_blocks
        if block["type"] == "image" and "base64" in block
    ]
