"""Turning tokens into text as they come."""

from __future__ import annotations

from kamera_agent.runtime.families.base import Family


class Streamer:
    """Text of a growing reply. A piece is held back while its last character is incomplete."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.token_ids: list[int] = []
        self._num_sent = 0

    @property
    def text(self) -> str:
        """All text so far."""
        return self._family.detokenize(self.token_ids)

    def push(self, token: int) -> str:
        """Add a token; the text that is now certain, often empty."""
        self.token_ids.append(token)
        text = self.text
        return "" if text.endswith("\ufffd") else self._send(text)

    def flush(self) -> str:
        """What was held back."""
        return self._send(self.text)

    def _send(self, text: str) -> str:
        piece = text[self._num_sent :]
        self._num_sent = len(text)
        return piece
