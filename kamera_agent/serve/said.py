"""What the model said, word for word, by the form in which clients send it back."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from blake3 import blake3

from kamera_agent.serve.digest import digest_of
from kamera_agent.serve.sent import Sent
from kamera_agent.turns.message import Message
from kamera_agent.turns.transcript import THINKING

# Replies that are remembered: a few megabytes. One with reasoning counts twice.
MAX_REPLIES = 2048


class Said:
    """Remembers replies: a call or the blanks of a text, written anew, would be other tokens.

    Replies may look alike where clients cut the reasoning out. Then a reply is known by the ids of its calls, by its
    place among all that look like it, or by the messages before it. Where none of these decides, none is found.

    Safe for use from several threads. place: of the conversation. messages: of a request.
    """

    def __init__(self) -> None:
        # By what they show, in order.
        self._alike: OrderedDict[bytes, dict[tuple[object, ...], _Reply]] = OrderedDict()
        self._num_replies = 0
        self._lock = threading.Lock()

    def note(self, place: object, messages: Sequence[Sent], sent: Sent, message: Message) -> None:
        """Remember the reply to messages. sent: as it goes to the client. message: the reply for a transcript."""
        *_, before = _befores(map(_form, messages))
        reply = _Reply(_form(sent), before, _ids(sent), message)
        # What a client does not show, it often does not send back.
        forms = {reply.form, _form(sent._replace(parts=(_shown(sent.text),)))}
        with self._lock:
            for key in (digest_of(repr(place), form) for form in forms):
                alike = self._alike.setdefault(key, {})
                self._alike.move_to_end(key)
                self._num_replies -= len(alike)
                alike[reply[:3]] = reply
                self._num_replies += len(alike)
            while self._num_replies > MAX_REPLIES:
                self._num_replies -= len(self._alike.popitem(last=False)[1])

    def find(self, place: object, messages: Sequence[Sent]) -> list[Message | None]:
        """The replies that a client sends back, in the places of messages; None in all other places.

        They may have other blanks around them and within their JSON, and lack all their reasoning.
        """
        forms = [*map(_form, messages)]
        befores = [*_befores(forms)]
        numbers: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, sent in enumerate(messages):
            if sent.role == "assistant":
                numbers[forms[number]].append(number)
        known = {form: self._known(place, form) for form in numbers}
        # Nothing has been dropped or edited before the last reply.
        last = max((places[-1] for places in numbers.values()), default=None)
        is_whole = last is not None and any(reply.before == befores[last] for reply in known[forms[last]])
        found: list[Message | None] = [None] * len(messages)
        for form, places in numbers.items():
            # A reply that is there with its reasoning is not there without it.
            alike = _Alike([reply for reply in known[form] if reply.form == form or reply.form not in numbers], form)
            for index, number in enumerate(places):
                before = befores[number] if is_whole else None
                reply = alike.find(_ids(messages[number]), index if len(places) == alike.num_replies else None, before)
                found[number] = reply.message if reply else None
        return found

    def _known(self, place: object, form: bytes) -> list[_Reply]:
        """All replies of a form, in order."""
        key = digest_of(repr(place), form)
        with self._lock:
            if key not in self._alike:
                return []
            self._alike.move_to_end(key)
            return [*self._alike[key].values()]


class _Reply(NamedTuple):
    """A reply. form: of all of it. before: a digest of the messages before it. ids: of its calls."""

    form: bytes
    before: bytes
    ids: tuple[str, ...]
    message: Message


class _Alike:
    """Replies that look alike in a request."""

    def __init__(self, replies: Sequence[_Reply], form: bytes) -> None:
        """replies: in order. form: which all of them have, some without their reasoning."""
        self._replies = replies
        self._by_ids = {reply.ids: reply for reply in replies if reply.ids}
        # None after messages that have several replies.
        self._by_before: dict[bytes, _Reply | None] = {}
        for reply in replies:
            other = self._by_before.setdefault(reply.before, reply)
            if other and other.form != reply.form:
                self._by_before[reply.before] = None
        self._are_equal = all(reply.form == form for reply in replies)

    @property
    def num_replies(self) -> int:
        """How many they are."""
        return len(self._replies)

    def find(self, ids: tuple[str, ...], index: int | None, before: bytes | None) -> _Reply | None:
        """The reply that has ids of calls, a place among the others, or messages before it; None where it is not known.

        index, before: None where the request may lack some of them.
        """
        if ids in self._by_ids:
            return self._by_ids[ids]
        if index is not None:
            return self._replies[index]
        if before in self._by_before:
            return self._by_before[before]
        return self._replies[-1] if self._are_equal and self._replies else None


def _befores(forms: Iterable[bytes]) -> Iterator[bytes]:
    """Digests of what is before each of the messages with these forms, and before the next one."""
    digest = blake3()
    for form in forms:
        yield digest.digest()
        digest.update(form)
    yield digest.digest()


def _ids(sent: Sent) -> tuple[str, ...]:
    return tuple(call.id for call in sent.calls if call.id)


def _form(sent: Sent) -> bytes:
    """A digest of what a message shows: of a reply without the blanks around it and within its JSON."""
    parts = (_plain(sent.text.strip()),) if sent.role == "assistant" else sent.parts
    calls = (part for call in sent.calls for part in (call.name, _plain(call.arguments)))
    return digest_of(sent.role, str(len(parts)), *parts, *calls)


def _shown(text: str) -> str:
    """A text without its reasoning, which may begin in the prompt, and so have no opening.

    Takes a time that grows with the length: a model may repeat an opening without an end.
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
