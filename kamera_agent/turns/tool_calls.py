"""Tool calls in the text of a reply, in the Hermes form: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from kamera_agent.turns.message import BrokenCall, Message, ToolCall
from kamera_agent.window.streamer import opening_of

OPENING = "<tool_call>"
CLOSING = "</tool_call>"

# The usual beginnings of a call, up to its name and up to its arguments. They are looked for with each piece, so they
# are bounded; a call that begins in another way is read at its end.
NAME = re.compile(r'\s{0,99}\{\s{0,99}"name"\s{0,99}:\s{0,99}("(?:[^"\\]|\\.){1,999}")\s{0,99}')
ARGUMENTS = re.compile(r',\s{0,99}"arguments"\s{0,99}:\s{0,99}(?=\{)')
CUT = "The reply was cut off inside this call, at max_tokens"
ENDED = "The reply ends inside this call"


class ParsedReply(NamedTuple):
    """A reply taken apart: its content without calls, the calls, and what looks like a call and cannot be read."""

    content: str
    calls: list[ToolCall]
    broken: list[BrokenCall]

    def message(self, text: str) -> Message:
        """The message of the reply. text: all of it, as it was generated."""
        verbatim = None if self.content == text else text
        return Message("assistant", (self.content,) if self.content else (), tuple(self.calls), verbatim=verbatim)


@dataclass(frozen=True, slots=True)
class CallPiece:
    """A piece of a call, as it is generated.

    index: the number of the call in its reply. name: with the first piece, where it is known. arguments: a piece of
    JSON; the pieces of a call are its arguments, or the text of a BrokenCall.
    """

    index: int
    name: str | None
    arguments: str


Piece = str | CallPiece


class ReplyReader:
    """Takes a reply apart while it is generated.

    A reply with a call loses the blanks at its end, and those after an initial call. All other text is content.
    has_calls: False for a reply of JSON, which has no calls, whatever is in its strings.
    is_forced: whether the reply can be nothing but a call.
    """

    def __init__(self, *, has_calls: bool = True, is_forced: bool = False) -> None:
        self._has_calls, self._is_forced = has_calls, is_forced
        self._pieces: list[str] = []
        self._calls: list[ToolCall | BrokenCall] = []
        # Text outside calls that is not certain to be content: blanks, and what may be the beginning of a call.
        self._held = ""
        self._call: _Call | None = None

    @property
    def parsed(self) -> ParsedReply:
        """The reply so far."""
        calls = [call for call in self._calls if isinstance(call, ToolCall)]
        broken = [call for call in self._calls if isinstance(call, BrokenCall)]
        return ParsedReply("".join(self._pieces), calls, broken)

    def feed(self, text: str) -> Iterator[Piece]:
        """Add text; returns what is certain from now on: content and pieces of calls."""
        if text and not self._has_calls:
            yield self._add(text)
            return
        while text:
            if self._call is None:
                before, opening, rest = (self._held + text).partition(OPENING)
                size = len(before) - (0 if opening else opening_of(OPENING, before))
                self._held = before[:size]
                yield from self._content()
                self._held += before[size:]
                self._call, text = (_Call(len(self._calls)) if opening else None), rest
            else:
                rest_of_call = self._call.feed(text)
                yield from self._call.pieces()
                if rest_of_call is None:
                    return
                yield from self._end(None)
                text = rest_of_call

    def finish(self, *, cut: bool = False) -> Iterator[Piece]:
        """End the reply; returns what was held back. cut: whether max_tokens ended it."""
        if self._call is not None:
            self._call.leave()
            yield from self._call.pieces()
            yield from self._end(CUT if cut else ENDED)
        elif self._held and self._is_forced:
            self._calls.append(BrokenCall(None, self._held, CUT if cut else ENDED))
            yield CallPiece(len(self._calls) - 1, None, self._held)
        elif self._held and not self._calls:
            yield self._add(self._held)
        elif self._held.strip():
            yield from self._content()
        self._held = ""

    def _content(self) -> Iterator[str]:
        """The text that is held back, up to its last blanks: a call may follow and take them."""
        certain = self._held.rstrip()
        if certain:
            self._held = self._held[len(certain) :]
            # Blanks before an initial text stay: they may have been sent before a call followed.
            yield self._add(certain if self._pieces or not self._calls else certain.lstrip())

    def _add(self, content: str) -> str:
        self._pieces.append(content)
        return content

    def _end(self, unfinished: str | None) -> Iterator[CallPiece]:
        assert self._call is not None
        call, rest = self._call.end(unfinished)
        self._calls.append(call)
        self._call = None
        if rest:
            yield rest


class _Call:
    """A call while it is generated: the text after its opening, read as JSON as far as it goes."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._text = ""
        self._read = 0
        self._is_json: bool | None = None
        self._in_string = self._escaped = False
        self._depth = 0
        self._name: str | None = None
        self._start: int | None = None
        self._stop: int | None = None
        self._num_sent = 0
        self._is_named = False
        self._is_closed = False

    def feed(self, text: str) -> str | None:
        """Add text; returns what follows the closing, None where it has not come."""
        self._text += text
        self._find_arguments()
        if self._is_json is None and (begun := text.lstrip()):
            self._is_json = begun.startswith("{")
        while self._read < len(self._text):
            char = self._text[self._read]
            if self._in_string:
                self._in_string = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == "<" and CLOSING.startswith(self._text[self._read : self._read + len(CLOSING)]):
                if not self._text.startswith(CLOSING, self._read):
                    return None
                rest = self._text[self._read + len(CLOSING) :]
                self._text, self._is_closed = self._text[: self._read], True
                return rest
            elif char == '"':
                self._in_string = bool(self._is_json)
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 1 and self._start is not None and self._stop is None:
                    self._stop = self._read + 1
            self._read += 1
        return None

    def leave(self) -> None:
        """Take the beginning of a closing from the end, where the reply was cut off inside it."""
        self._text = self._text[: self._read]

    def pieces(self) -> Iterator[CallPiece]:
        """The name and the arguments that are certain and were not returned before."""
        if self._name is not None and not self._is_named:
            self._is_named = True
            yield CallPiece(self._index, self._name, "")
        if piece := self._arguments()[self._num_sent :]:
            self._num_sent += len(piece)
            yield CallPiece(self._index, None, piece)

    def end(self, unfinished: str | None) -> tuple[ToolCall | BrokenCall, CallPiece | None]:
        """The call, and the last piece of it. unfinished: the reason where no closing came."""
        try:
            call = _read_call(self._text)
            self._check(call)
            arguments = json.dumps(call.arguments, ensure_ascii=False)
        except (ValueError, RecursionError) as error:
            reason = "Its JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
            return self._broken(f"{unfinished}: {reason}" if unfinished else reason)
        if self._start is not None:
            return call, None
        return call, CallPiece(self._index, None if self._is_named else call.name, arguments)

    def _arguments(self) -> str:
        return "" if self._start is None else self._text[self._start : self._stop or self._read]

    def _find_arguments(self) -> None:
        if self._start is None and (name := NAME.match(self._text)):
            try:
                self._name = json.loads(name[1], strict=False)
            except ValueError:
                return
            if arguments := ARGUMENTS.match(self._text, name.end()):
                self._start = arguments.end()

    def _check(self, call: ToolCall) -> None:
        """Raise ValueError where the pieces that were returned are not those of the call: JSON may repeat a key."""
        if self._name not in (None, call.name):
            raise ValueError(f"A call has one name; got {self._name!r} and {call.name!r}.")
        if self._start is not None and json.dumps(json.loads(self._arguments(), strict=False)) != json.dumps(
            call.arguments
        ):
            raise ValueError("A call has its arguments once; got them twice.")

    def _broken(self, reason: str) -> tuple[BrokenCall, CallPiece]:
        sent = self._arguments()
        rest = _spoiling(sent, reason) if sent else f"{OPENING}{self._text}{CLOSING if self._is_closed else ''}"
        return BrokenCall(self._name, sent + rest, reason), CallPiece(self._index, None, rest)


def new_call_id() -> str:
    """An id for a call of a reply."""
    return f"call_{uuid4().hex}"


def parse_reply(text: str, reader: ReplyReader | None = None, *, cut: bool = False) -> ParsedReply:
    """Take a whole reply apart, by a new reader. A malformed call never raises; it is returned with the reason."""
    reader = reader or ReplyReader()
    for _ in (*reader.feed(text), *reader.finish(cut=cut)):
        pass
    return reader.parsed


def _spoiling(arguments: str, reason: str) -> str:
    """An end for arguments that are not those of a call.

    Clients complete JSON that was cut off, and would make a call of it: the object is closed by a wrong bracket, and
    the reason follows.
    """
    open_brackets, in_string, escaped = [], False, False
    for char in arguments:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            open_brackets.append(char)
        elif char in "}]" and open_brackets:
            open_brackets.pop()
    string = ("\\" if escaped else "") + ('"' if in_string else "")
    return f"{string}{'}' if open_brackets[-1:] == ['['] else ']'} ({reason})"


def _read_call(text: str) -> ToolCall:
    # Small models write line breaks into strings as they are.
    call = json.loads(text, strict=False)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        raise ValueError(f"A call must be an object with a name; got {text.strip()[:200]!r}.")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"The arguments of {call['name']!r} must be an object; got {json.dumps(arguments)[:200]}.")
    return ToolCall(call["name"], arguments)
