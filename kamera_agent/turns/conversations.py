"""The live windows of conversations, bounded in number and bytes. The least recently used window goes first."""

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
    """Windows by conversation id. When a window goes, its chunks and patches stay in the store.

    Safe for use from several threads: one answer at a time per conversation, several conversations side by side.
    """

    def __init__(self, kamera: Kamera, max_windows: int, max_bytes: int) -> None:
        """max_bytes: bound of the windows' KV pools and of the dropped spans that they keep for recall."""
        self._kamera = kamera
        self._max_windows, self._max_bytes = max_windows, max_bytes
        self._live: OrderedDict[str, _Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._live)

    @contextmanager
    def hold(self, conversation_id: str) -> Iterator[Window]:
        """Hold the window of a conversation, which is made if there is none. Others that want this one wait."""
        with self._lock:
            if conversation_id not in self._live:
                self._live[conversation_id] = _Conversation(self._kamera.window())
            conversation = self._live[conversation_id]
            self._live.move_to_end(conversation_id)
            conversation.num_users += 1
        try:
            # Outside the common lock: an answer takes long, and other conversations go on meanwhile.
            with conversation.lock:
                yield conversation.window
        finally:
            with self._lock:
                conversation.num_users -= 1
                self._evict()

    def _evict(self) -> None:
        while len(self._live) > 1 and (len(self._live) > self._max_windows or self._num_bytes() > self._max_bytes):
            # A window in use is never let go, even beyond the bounds; its own end comes by here again.
            idle = next((key for key, conversation in self._live.items() if conversation.num_users == 0), None)
            if idle is None:
                return
            del self._live[idle]

    def _num_bytes(self) -> int:
        return sum(each.window.pool_bytes + each.window.dropped_bytes for each in self._live.values())
