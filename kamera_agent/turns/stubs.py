"""Stubs in the place of screenshots that a policy does not show, for front ends whose clients keep them all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from blake3 import blake3

from kamera_agent.errors import ImageError
from kamera_agent.turns.message import Message
from kamera_agent.turns.policy import Budget, Policy

STUB = "[Screenshot {} is not shown.]"
# Images whose tokens are remembered, for a Budget.
MAX_COUNTS = 4096


class Stubs:
    """Applies a policy to messages. The number in a stub is that of the image among all images of the messages.

    Safe for use from several threads.
    """

    def __init__(self, policy: Policy, count_tokens: Callable[[bytes], int]) -> None:
        """count_tokens: of an encoded image, for a Budget. Raises ImageError."""
        self._policy, self._count_tokens = policy, count_tokens
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def show(self, messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        """The messages as the policy shows them, and as it will once another image has come, as large as the last."""
        images = [part for message in messages for part in message.parts if isinstance(part, bytes)]
        sizes = [self._size(image) for image in images]
        first, next_first = self._policy.first(sizes), self._policy.first([*sizes, *sizes[-1:]])
        return [*_with_stubs(messages, first)], [*_with_stubs(messages, next_first)]

    def _size(self, image: bytes) -> int:
        """Tokens of an image; 0 where the policy does not need them, and for one that becomes a text."""
        if not isinstance(self._policy, Budget):
            return 0
        key = blake3(image).digest(16)
        with self._lock:
            if (known := self._counts.get(key)) is not None:
                self._counts.move_to_end(key)
                return known
        try:
            size = self._count_tokens(image)
        except ImageError:
            size = 0
        with self._lock:
            self._counts[key] = size
            if len(self._counts) > MAX_COUNTS:
                self._counts.popitem(last=False)
        return size


def _with_stubs(messages: Sequence[Message], first: int) -> Iterator[Message]:
    """The messages with stubs for the images before the one with this index."""
    number = 0
    for message in messages:
        parts: list[str | bytes] = []
        for part in message.parts:
            number += isinstance(part, bytes)
            parts.append(part if isinstance(part, str) or number > first else STUB.format(number))
        yield replace(message, parts=tuple(parts)) if parts != [*message.parts] else message
