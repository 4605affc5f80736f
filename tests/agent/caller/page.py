"""A lesson as tokens: those of the replies, and the tokens that they repeat."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from kamera_agent.agent.messages import METADATA, SAID, read_message
from kamera_agent.config import Settings
from kamera_agent.runtime.families.base import Family
from kamera_agent.turns.transcript import transcribe
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, Layout

from .lessons import ANSWER, Lesson
from .sayings import MENTION, VALUE

NOWHERE, ANCHOR = -1, 0
NAME = '"name":"'


class Page(NamedTuple):
    """A lesson, by token.

    is_reply: whether the model generates the token. sources: index of the token that it repeats, or NOWHERE.
    subjects: for the first token of a reply and of the name of a tool, index of the word that mentions the tool, or
    ANCHOR if there is none; otherwise NOWHERE.
    """

    token_ids: list[int]
    is_reply: list[bool]
    sources: list[int]
    subjects: list[int]


class Link(NamedTuple):
    """Bytes of a reply that repeat others. start, source: offsets of both in the page."""

    start: int
    source: int
    size: int


class Turn(NamedTuple):
    """A message, and the offset of its text in the page, in bytes."""

    message: BaseMessage
    start: int


def make_page(family: Family, lesson: Lesson) -> Page:
    """The tokens of the window of a ChatKamera, up to the end of the last reply."""
    transcript = transcribe(family, [read_message(message) for message in lesson.messages], lesson.tools)
    items = Items(family, Settings(), transcript.system)
    places = Layout(family).places([*items.live, *map(items.make, transcript.contents)])
    token_ids, is_reply = _tokens(family, [place.item for place in places])
    # In the byte alphabet of the tokenizer, a character of a token is a byte of the text.
    ends = [*accumulate(len(piece) for piece in family.processors.tokenizer.convert_ids_to_tokens(token_ids))]
    text = family.processors.tokenizer.decode(token_ids).encode()
    sources, subjects = [NOWHERE] * len(token_ids), [NOWHERE] * len(token_ids)
    for asked, reply in _exchanges(text, lesson):
        for link in _links(text, asked, reply):
            first = bisect_right(ends, link.start)
            for index in range(first, bisect_right(ends, link.start + link.size - 1) + 1):
                start = max(ends[index - 1], link.start)
                sources[index] = bisect_right(ends, link.source + start - link.start)
        for start, subject in _subjects(text, asked, reply).items():
            subjects[bisect_right(ends, start)] = bisect_right(ends, subject)
    return Page(token_ids, is_reply, sources, subjects)


def _tokens(family: Family, items: list[Item]) -> tuple[list[int], list[bool]]:
    token_ids: list[int] = []
    is_reply: list[bool] = []
    speaking = False
    for item in items:
        run = item.run.token_ids
        if item.kind == "turn":
            # The model ends its own turn with the first token of the markup.
            is_reply += [speaking, *[False] * (len(run) - 1)]
        else:
            speaking = item.role == "assistant"
            is_reply += [speaking] * len(run)
        token_ids += run
    return [*token_ids, *family.chat.turn("assistant", "user")[:1]], [*is_reply, True]


def _exchanges(text: bytes, lesson: Lesson) -> Iterator[tuple[Turn, Turn]]:
    """Every reply with the message before it."""
    before, read = Turn(HumanMessage(""), 0), 0
    for message in lesson.messages:
        shown = message.response_metadata.get(METADATA, {}).get(SAID) or message.text
        turn = Turn(message, text.index(shown.encode(), read))
        read = turn.start + len(shown.encode())
        if isinstance(message, AIMessage):
            yield before, turn
        before = turn


def _links(text: bytes, asked: Turn, reply: Turn) -> Iterator[Link]:
    """Links of a reply to the names of a tool and its arguments in the system turn, and to values or a result."""
    if isinstance(asked.message, ToolMessage):
        yield Link(reply.start + len(ANSWER), asked.start, len(asked.message.text.encode()))
    for call in reply.message.tool_calls:
        source = text.index(f'"name": "{call["name"]}"'.encode()) + len('"name": "')
        start = text.index(NAME.encode(), reply.start) + len(NAME)
        yield Link(start, source, len(call["name"]))
        for (key, value), (left, right) in zip(
            call["args"].items(), asked.message.additional_kwargs[VALUE], strict=True
        ):
            start = text.index(f'"{key}":'.encode(), start) + 1
            source = text.index(f'"{key}": {{"type"'.encode(), source) + 1
            yield Link(start, source, len(key))
            start += len(key) + (3 if isinstance(value, str) else 2)
            yield Link(start, _offset(asked, left), _offset(asked, right) - _offset(asked, left))


def _subjects(text: bytes, asked: Turn, reply: Turn) -> Mapping[int, int]:
    """From the start of a reply to the last byte of a mention, and from the name in a call to its first byte."""
    if isinstance(asked.message, ToolMessage):
        return {}
    if not reply.message.tool_calls:
        return {reply.start: ANCHOR}
    ((left, right),) = asked.message.additional_kwargs[MENTION]
    name_at = text.index(NAME.encode(), reply.start) + len(NAME)
    return {reply.start: _offset(asked, right) - 1, name_at: _offset(asked, left)}


def _offset(turn: Turn, index: int) -> int:
    """Offset in the page of a character of a message, in bytes."""
    return turn.start + len(turn.message.text[:index].encode())
