"""The live windows of conversations: a bounded number, the least recently used one goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kamera_agent.kamera import Kamera
from kamera_agent.window.window import Window


@dataclass(slots=True)
class _Conversation:
    window: Window
    lock: threading.Lock = field(default_factory=threading.Lock)
    num_users: int = 0


class Conversations:
    """Windows by conversation id. A window that goes leaves its chunks and patches in the store.

    Safe for use from several threads: one answer at a time in a conversation, several conversations side by side.
    """

    def __init__(self, kamera: Kamera, max_windows: int, max_bytes: int) -> None:
        """max_bytes: of the windows' KV pools and of what they keep for recall."""
        self._kamera = kamera
        self._max_windows, self._max_bytes = max_windows, max_bytes
        self._living: OrderedDict[str, _Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._living)

    @contextmanager
    def hold(self, conversation_id: str) -> Iterator[Window]:
        """The window of a conversation, for this caller alone; others of that conversation wait."""
        with self._lock:
            if conversation_id not in self._living:
                self._living[conversation_id] = _Conversation(self._kamera.window())
            conversation = self._living[conversation_id]
            self._living.move_to_end(conversation_id)
            conversation.num_users += 1
        try:
            with conversation.lock:
                yield conversation.window
        finally:
            with self._lock:
                conversation.num_users -= 1
                self._let_go()

    def _let_go(self) -> None:
        while len(self._living) > 1 and (len(self._living) > self._max_windows or self._num_bytes() > self._max_bytes):
            idle = next((key for key, conversation in self._living.items() if conversation.num_users == 0), None)
            if idle is None:
                return
            del self._living[idle]

    def _num_bytes(self) -> int:
        return sum(living.window.pool_bytes + living.window.dropped_bytes for living in self._living.values())
