"""Conversations by the response that ends them, for the requests that go on from one."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from typing import NamedTuple

from kamera_agent.serve.errors import Refused
from kamera_agent.serve.sent import Sent

# Of each namespace: responses, and bytes of what was new in them.
MAX_RESPONSES, MAX_BYTES = 64, 256 << 20


class Conversation(NamedTuple):
    """The messages of a conversation up to a reply, and the bytes of those that its last request brought."""

    messages: tuple[Sent, ...]
    num_bytes: int


class Kept:
    """Keeps the last conversations of each namespace, by the id of the response. Safe for use from several threads."""

    def __init__(self) -> None:
        self._by_namespace: defaultdict[str | None, OrderedDict[str, Conversation]] = defaultdict(OrderedDict)
        self._lock = threading.Lock()

    def keep(self, namespace: str | None, response_id: str, before: tuple[Sent, ...], new: tuple[Sent, ...]) -> None:
        """Keep the conversation of a response. before: what it went on from. new: the messages after that."""
        num_bytes = sum(len(part) for sent in new for part in sent.parts)
        with self._lock:
            kept = self._by_namespace[namespace]
            kept[response_id] = Conversation((*before, *new), num_bytes)
            while len(kept) > MAX_RESPONSES or sum(each.num_bytes for each in kept.values()) > MAX_BYTES:
                kept.popitem(last=False)

    def find(self, namespace: str | None, response_id: str) -> tuple[Sent, ...]:
        """The conversation of a response. Raises Refused for one that is not kept, or is of another namespace."""
        with self._lock:
            conversation = self._by_namespace[namespace].get(response_id)
            if conversation is None:
                message = (
                    f"There is no response {response_id[:80]!r}: the last {MAX_RESPONSES} are kept that were not asked "
                    "with store=false. Send the whole input."
                )
                raise Refused(400, message, "previous_response_not_found", "previous_response_id")
            return conversation.messages
