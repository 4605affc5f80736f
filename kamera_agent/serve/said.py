"""What the model said, word for word, by the form in which clients send it back."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from kamera_agent.turns.message import Message
from kamera_agent.turns.transcript import THINKING

# Replies that are remembered: a few megabytes.
MAX_REPLIES = 1024


class CallForm(NamedTuple):
    """A call as a client knows it. arguments: JSON."""

    name: str
    arguments: str

    def read(self) -> dict[str, Any] | None:
        """The arguments; None where they are no JSON object."""
        try:
            arguments = json.loads(self.arguments, strict=False)
        except (ValueError, RecursionError):
            return None
        return arguments if isinstance(arguments, dict) else None


class Said:
    """Remembers replies: a call or the blanks of a text, written anew, would be other tokens.

    Safe for use from several threads. place: of the conversation.
    """

    def __init__(self) -> None:
        self._replies: OrderedDict[tuple[object, ...], Message] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, place: object, text: str, calls: Sequence[CallForm], message: Message) -> None:
        """Remember a reply. text, calls: of the reply as it goes to the client. message: the reply for a transcript."""
        key = _key(place, text, calls)
        with self._lock:
            self._replies[key] = message
            self._replies.move_to_end(key)
            if len(self._replies) > MAX_REPLIES:
                self._replies.popitem(last=False)

    def find(self, place: object, text: str, calls: Sequence[CallForm]) -> Message | None:
        """The reply that a client sends back.

        It may lack its reasoning, and have other blanks around it and within its JSON.
        """
        key = _key(place, text, calls)
        with self._lock:
            if key in self._replies:
                self._replies.move_to_end(key)
            return self._replies.get(key)


def _key(place: object, text: str, calls: Sequence[CallForm]) -> tuple[object, ...]:
    # What a client does not show, it often does not send back.
    return place, _plain(_shown(text).strip()), *((call.name, _plain(call.arguments)) for call in calls)


def _shown(text: str) -> str:
    """A text without its reasoning, which may begin in the prompt, and so have no opening.

    Takes a time that grows with the length: a client may send an opening a million times.
    """
    opening, closing = THINKING
    *closed, rest = text.split(closing)
    shown: list[str] = []
    for piece in closed:
        before, begun, _ = piece.partition(opening)
        if begun:
            shown.append(before)
        else:
            shown.clear()
    return "".join([*shown, rest])


def _plain(text: str) -> str:
    """JSON in one spelling; a text that is none as it is."""
    if not text.startswith(("{", "[")):
        return text
    try:
        value: Any = json.loads(text, strict=False)
        return json.dumps(value, sort_keys=True)
    except (ValueError, RecursionError):
        return text
