"""Conversations by the response that ends them, for the requests that go on from one."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict
from sys import getsizeof

from kamera_agent.serve.errors import Refused
from kamera_agent.serve.sent import Sent

# Of each namespace: responses, and bytes of all their messages.
MAX_RESPONSES, MAX_BYTES = 64, 256 << 20


class Kept:
    """Keeps the last conversations of each namespace, by the id of the response. Safe for use from several threads.

    A conversation that is larger than the bound is not kept.
    """

    def __init__(self) -> None:
        self._by_namespace: defaultdict[str | None, _Conversations] = defaultdict(_Conversations)
        self._lock = threading.Lock()

    def keep(self, namespace: str | None, response_id: str, before: tuple[Sent, ...], new: tuple[Sent, ...]) -> None:
        """Keep the conversation of a response. before: what it went on from. new: the messages after that."""
        messages = (*before, *new)
        if _num_bytes(messages) <= MAX_BYTES:
            with self._lock:
                self._by_namespace[namespace].add(response_id, messages)

    def find(self, namespace: str | None, response_id: str) -> tuple[Sent, ...]:
        """The conversation of a response. Raises Refused for one that is not kept, or is of another namespace."""
        with self._lock:
            messages = self._by_namespace[namespace].by_id.get(response_id)
        if messages is None:
            message = (
                f"There is no response {response_id[:80]!r}: the last {MAX_RESPONSES} are kept that were not asked "
                "with store=false and have room. Send the whole input."
            )
            raise Refused(400, message, "previous_response_not_found", "previous_response_id")
        return messages


class _Conversations:
    """The conversations of one namespace. Those that go on from one another share messages, which count once."""

    def __init__(self) -> None:
        self.by_id: OrderedDict[str, tuple[Sent, ...]] = OrderedDict()
        # In how many conversations a message is, by its identity.
        self._uses: Counter[int] = Counter()
        self._num_bytes = 0

    def add(self, response_id: str, messages: tuple[Sent, ...]) -> None:
        """Add a conversation; the oldest go that have no room beside it."""
        self._num_bytes += getsizeof(messages) + sum(_size(sent) for sent in messages if not self._uses[id(sent)])
        self._uses.update(map(id, messages))
        self.by_id[response_id] = messages
        while len(self.by_id) > MAX_RESPONSES or self._num_bytes > MAX_BYTES:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, messages = self.by_id.popitem(last=False)
        self._uses.subtract(map(id, messages))
        gone = [sent for sent in messages if not self._uses[id(sent)]]
        self._num_bytes -= getsizeof(messages) + sum(map(_size, gone))
        for sent in gone:
            del self._uses[id(sent)]


def _num_bytes(messages: tuple[Sent, ...]) -> int:
    return getsizeof(messages) + sum(map(_size, messages))


def _size(sent: Sent) -> int:
    """The bytes of a message in memory."""
    calls = (value for call in sent.calls for value in (call, *call))
    return sum(map(getsizeof, (sent, sent.call_id, sent.parts, *sent.parts, sent.calls, *calls)))
