"""A forecast of what a client sends next, by how it edited its history last.

Agents drop old screenshots in few ways: a text takes the place of the oldest one, or nothing does, or its whole turn
goes. They do so at every step, or a few at a time. The next edit does the same to what comes next of the same kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import islice, pairwise
from typing import Any, NamedTuple

from blake3 import blake3

from kamera_agent.turns.message import Message

TEXT, IMAGE, CALL, ROLE = "text", "image", "call", "role "
# A longer row of digits is no count.
NUMBERS = re.compile(r"(?<!\d)(\d{1,18})(?!\d)")

# Tokens of one list times those of the other, between their common beginning and their common end. The comparison may
# take as many steps as that times the changes: a tenth of a second.
MAX_PAIRS = 100_000


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a message list. kind: TEXT, IMAGE, CALL, or ROLE and the role where a message begins.

    content: what it is, by which it is compared. source: what it was made of.
    """

    kind: str
    content: Hashable
    source: Any = field(default=None, compare=False, repr=False)


class Filling(NamedTuple):
    """A text that an edit puts in: `text`, after the removed text with the number `after`; None where it is alone."""

    text: str
    after: int | None = None


class Change(NamedTuple):
    """One place of an edit.

    kinds: of the tokens that went, in a row. skip: how many such rows before it stayed. put: what came in their place.
    """

    kinds: tuple[str, ...]
    skip: int
    put: tuple[Token | Filling, ...]

    @property
    def is_foreseeable(self) -> bool:
        """Whether it takes an image or a message away, and puts no image in, which nobody could know."""
        takes = any(kind == IMAGE or kind.startswith(ROLE) for kind in self.kinds)
        return takes and not any(isinstance(part, Token) and part.kind == IMAGE for part in self.put)


class Kinds:
    """The kinds of tokens as a text of one character each, in which rows of them are found in linear time."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._letters: dict[str, str] = {}
        self._text = self._spelled(token.kind for token in tokens)

    def of(self, kinds: Sequence[str]) -> Iterator[int]:
        """Where rows of these kinds begin, which do not overlap."""
        row = self._spelled(kinds)
        start = self._text.find(row)
        while start >= 0:
            yield start
            start = self._text.find(row, start + len(row))

    def count(self, kinds: Sequence[str], end: int) -> int:
        """The number of such rows among the first tokens, up to `end`."""
        return self._text.count(self._spelled(kinds), 0, end)

    def _spelled(self, kinds: Iterable[str]) -> str:
        return "".join(self._letters.setdefault(kind, chr(len(self._letters))) for kind in kinds)


class Forecast:
    """Foresees the next edit of one conversation. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._last: list[Token] = []
        self._seen: list[Change] = []
        # The next edit, and how many images, or messages, the client had before it made the last one.
        self._next: list[Change] = []
        self._most = 0

    def next(self, messages: Sequence[Message]) -> list[Message] | None:
        """The messages of a call as the next one will have them, up to the reply; None where it is not known.

        Each call is to be given once, in order.
        """
        tokens = [*_tokens(messages)]
        # What came since the last call: its reply, and all after it.
        new = _last_reply(tokens)
        changes = [change for change in _changes(self._last, tokens[:new]) if change.is_foreseeable]
        if changes:
            self._next = _continued(self._seen, changes)
            self._seen, self._most = changes, _count(self._last, changes)
        # Without the pixels.
        self._last = [Token(token.kind, token.content) for token in tokens]
        if not self._next or _count(tokens, self._next) + _count(tokens[new:], self._next) <= self._most:
            return None
        edited = _edited(tokens, self._next)
        return None if edited is None else [*_messages(edited, tokens)]


def _tokens(messages: Sequence[Message]) -> Iterator[Token]:
    for message in messages:
        yield Token(ROLE + message.role, message.call_id, message)
        for part in message.parts:
            if isinstance(part, str):
                yield Token(TEXT, part, part)
            else:
                yield Token(IMAGE, blake3(part).digest(16), part)
        for call in message.calls:
            yield Token(CALL, (call.name, json.dumps(call.arguments, sort_keys=True, default=str)), call)


def _messages(tokens: Sequence[Token], before: Sequence[Token]) -> Iterator[Message]:
    """The messages of edited tokens. One that is as it was before is the same object, with all that it knows."""
    whole = {id(row[0]): [*map(id, row)] for row in _by_message(before)}
    for head, *rest in _by_message(tokens):
        message: Message = head.source
        if whole.get(id(head)) == [id(head), *map(id, rest)]:
            yield message
            continue
        parts = tuple(token.source for token in rest if token.kind != CALL)
        calls = tuple(token.source for token in rest if token.kind == CALL)
        yield Message(message.role, parts, calls, message.call_id)


def _by_message(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    starts = [index for index, token in enumerate(tokens) if token.kind.startswith(ROLE)]
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start:end]


def _last_reply(tokens: Sequence[Token]) -> int:
    """Where the last reply begins."""
    roles = [index for index, token in enumerate(tokens) if token.kind == ROLE + "assistant"]
    return roles[-1] if roles else len(tokens)


def _changes(before: Sequence[Token], after: Sequence[Token]) -> Iterator[Change]:
    """The changes from one list to the other; none where too much of them differs to be one edit."""
    start = _num_common(before, after)
    most = min(len(before), len(after)) - start
    end = min(_num_common(before[::-1], after[::-1]), most)
    # What is left is short, as a rule.
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    if len(old) * len(new) > MAX_PAIRS:
        return
    # Long texts are compared once.
    numbers: dict[Token, int] = {}
    ours, theirs = ([numbers.setdefault(token, len(numbers)) for token in tokens] for tokens in (old, new))
    kinds_after = Kinds(after)
    for kind, i1, i2, j1, j2 in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind != "equal" and i1 < i2:
            kinds = tuple(token.kind for token in old[i1:i2])
            skip = kinds_after.count(kinds, start + j1)
            yield Change(kinds, skip, tuple(_put(token, old[i1:i2]) for token in new[j1:j2]))


def _num_common(one: Sequence[Token], other: Sequence[Token]) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(one), len(other)))


def _put(token: Token, removed: Sequence[Token]) -> Token | Filling:
    """What an edit puts in, free of the texts that it was put after."""
    if token.kind != TEXT:
        return token
    text = str(token.content)
    for number, other in enumerate(removed):
        if other.kind == TEXT and text.startswith(str(other.content)):
            return Filling(text[len(str(other.content)) :], number)
    return Filling(text)


def _count(tokens: Sequence[Token], changes: Sequence[Change]) -> int:
    """The images among tokens where the changes take images away, else the messages."""
    takes_images = any(IMAGE in change.kinds for change in changes)
    return sum(token.kind == IMAGE if takes_images else token.kind.startswith(ROLE) for token in tokens)


def _continued(before: Sequence[Change], last: Sequence[Change]) -> list[Change]:
    """The changes after two others: numbers in their texts go on as they did."""
    if [change.kinds for change in before] != [change.kinds for change in last]:
        return [*last]
    return [
        new._replace(put=tuple(map(_continue, old.put, new.put))) if len(old.put) == len(new.put) else new
        for old, new in zip(before, last, strict=True)
    ]


def _continue(old: Token | Filling, new: Token | Filling) -> Token | Filling:
    if not (isinstance(old, Filling) and isinstance(new, Filling)):
        return new
    theirs, ours = NUMBERS.split(old.text), NUMBERS.split(new.text)
    if theirs[::2] != ours[::2]:
        return new
    ours[1::2] = [str(2 * int(second) - int(first)) for first, second in zip(theirs[1::2], ours[1::2], strict=True)]
    return new._replace(text="".join(ours))


def _edited(tokens: Sequence[Token], changes: Sequence[Change]) -> list[Token] | None:
    """The tokens after the changes; None where there is no place for one of them."""
    edited, rows, is_taken = [*tokens], Kinds(tokens), bytearray(len(tokens))
    taken: list[tuple[int, Change]] = []
    for change in changes:
        size = len(change.kinds)
        free = (start for start in rows.of(change.kinds) if not any(is_taken[start : start + size]))
        start = next(islice(free, change.skip, None), None)
        if start is None:
            return None
        taken.append((start, change))
        is_taken[start : start + size] = bytes([1]) * size
    for start, change in sorted(taken, key=lambda place: -place[0]):
        removed = edited[start : start + len(change.kinds)]
        edited[start : start + len(change.kinds)] = [_filled(part, removed) for part in change.put]
    return edited


def _filled(part: Token | Filling, removed: Sequence[Token]) -> Token:
    if isinstance(part, Token):
        return part
    text = part.text if part.after is None else f"{removed[part.after].content}{part.text}"
    return Token(TEXT, text, text)
