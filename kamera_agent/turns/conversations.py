"""The live windows of conversations, bounded in number and bytes. The least recently used window goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep
from weakref import ref

from kamera_agent.kamera import Kamera
from kamera_agent.turns.background import Cancelled, never
from kamera_agent.window.window import Window

# How often a caller that waits for a window looks again.
POLL_S = 0.005


class _Hold:
    """Exists while somebody holds a window."""


@dataclass(slots=True)
class _Conversation:
    """A live window. holder: a weak reference, so a caller that Ctrl-C interrupts anywhere holds it no longer."""

    window: Window
    holder: ref[_Hold] | None = None

    @property
    def is_held(self) -> bool:
        return self.holder is not None and self.holder() is not None


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
    def hold(self, conversation_id: str, cancelled: Cancelled = never) -> Iterator[Window]:
        """Hold the window of a conversation, which is made if there is none. Others that want this one wait.

        Raises GeneratorExit where the wait is cancelled.
        """
        hold = _Hold()
        while (conversation := self._take(conversation_id, hold)) is None:
            if cancelled():
                raise GeneratorExit
            sleep(POLL_S)
        try:
            yield conversation.window
        finally:
            conversation.holder = None
            with self._lock:
                self._evict()

    def _take(self, conversation_id: str, hold: _Hold) -> _Conversation | None:
        """The conversation, held from now on; None while it is held otherwise."""
        with self._lock:
            if conversation_id not in self._live:
                self._live[conversation_id] = _Conversation(self._kamera.window())
            conversation = self._live[conversation_id]
            self._live.move_to_end(conversation_id)
            if conversation.is_held:
                return None
            conversation.holder = ref(hold)
            return conversation

    def _evict(self) -> None:
        while len(self._live) > 1 and (len(self._live) > self._max_windows or self._num_bytes() > self._max_bytes):
            # A window in use is never let go, even beyond the bounds; its own end comes by here again.
            idle = next((key for key, conversation in self._live.items() if not conversation.is_held), None)
            if idle is None:
                return
            del self._live[idle]

    def _num_bytes(self) -> int:
        return sum(each.window.pool_bytes + each.window.dropped_bytes for each in self._live.values())
