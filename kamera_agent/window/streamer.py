"""Text out of tokens, as they come."""

from __future__ import annotations

from collections.abc import Sequence

from kamera_agent.runtime.families.base import Family


class Streamer:
    """The text of a growing reply, up to the first stop word.

    text: all of it so far. stop_word: the one that ended it; None where none has.
    Text is held back while its last character is incomplete, and while it may be the beginning of a stop word.
    """

    def __init__(self, family: Family, stop_words: Sequence[str] = ()) -> None:
        self._family = family
        self._stop_words = stop_words
        self.token_ids: list[int] = []
        self.text = ""
        self.stop_word: str | None = None
        self._num_sent = 0

    def push(self, token: int) -> str:
        """Add a token; returns the text that is certain from now on, often empty."""
        self.token_ids.append(token)
        whole = self._family.tokens.decode(self.token_ids)
        places = {word: whole.index(word) for word in self._stop_words if word in whole}
        self.stop_word = min(places, key=places.__getitem__, default=None)
        text = self.text = whole[: places[self.stop_word]] if self.stop_word else whole
        # A tokenizer decodes the first bytes of a character to U+FFFD until the last one is there.
        if text.endswith("\ufffd"):
            return ""
        return self._send(text[: len(text) - max((opening_of(word, text) for word in self._stop_words), default=0)])

    def flush(self) -> str:
        """The text that is still held back."""
        return self._send(self.text)

    def _send(self, text: str) -> str:
        piece = text[self._num_sent :]
        self._num_sent = max(len(text), self._num_sent)
        return piece


def opening_of(word: str, text: str) -> int:
    """Number of characters at the end of a text that may be the beginning of a word."""
    return next((size for size in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:size])), 0)
