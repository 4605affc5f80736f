"""From messages to the contents of a window, through the model's own chat template.

Texts and images go through the template as placeholders and are put back afterwards. A text that looks like the
template's own markers therefore stays text, and the markers that the template writes inside a turn are tokens.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.runtime.families.tokens import Marked
from kamera_agent.turns.message import Message
from kamera_agent.turns.tool_calls import parse_reply
from kamera_agent.window.content import Content, ImageContent, TextContent

THINKING = ("<think>", "</think>")
# Text that cannot be a marker of a template.
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.$/-]*")
QUOTE = re.compile(r'(\\*)"')


class Transcript(NamedTuple):
    """The system prompt and the contents of a window."""

    system: str
    contents: list[Content]


def transcribe(family: Family, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Transcript:
    """Return the system prompt and the window contents for these messages. tools: in OpenAI's form.

    Raises InputError for no messages, for an image in a system message, for tools that the chat template has no place
    for, and for calls and tools that are nested too deeply.
    """
    if not messages:
        raise InputError("There are no messages; send at least one.")
    placeholders = _Placeholders()
    try:
        turns = family.chat.turns(
            [_for_template(message, placeholders) for message in messages],
            [_hide_tool(tool, placeholders) for tool in tools],
        )
    except RecursionError as error:
        raise InputError("The arguments of a call, or a tool, are nested too deeply; send flatter ones.") from error
    system, contents = family.chat.default_system, []
    for number, (role, text) in enumerate(turns):
        parts = [*placeholders.put_back(text)]
        if number == 0 and role == "system":
            if not all(isinstance(part, str) for part in parts):
                raise InputError("A system message holds text only; put the image into a user message.")
            system = Marked.of((part, False) for part in parts if isinstance(part, str))
        else:
            contents += _turn_contents(role, parts)
    return Transcript(system, contents)


def _turn_contents(role: str, parts: Sequence[str | bytes]) -> list[Content]:
    contents: list[Content] = []
    for part in parts:
        # Two messages of one role in a row stay two turns, and the parts of one message one turn.
        new_turn = not contents
        if isinstance(part, bytes):
            contents.append(ImageContent(part, role, new_turn))
        else:
            contents.append(TextContent(part, role, new_turn))
    # A message without words keeps its turn, as in the template.
    return contents or [TextContent("", role, new_turn=True)]


class _Placeholders:
    """Words that go through a template in the place of texts and images."""

    def __init__(self) -> None:
        # Unpredictable, so a page cannot contain a placeholder.
        self._nonce = secrets.token_hex(8)
        self._parts: list[str | bytes] = []
        self._quoted: set[int] = set()

    def add(self, part: str | bytes, *, own: bool = False) -> str:
        """A word for a text or an image. own: whether the model itself wrote the text."""
        self._parts.append(Marked.of([(part, True)]) if own and isinstance(part, str) else part)
        return f"part{self._nonce}n{len(self._parts) - 1}n"

    def add_quoted(self, text: str) -> str:
        """A word for a string in a call or a tool, or its result, with a quote: it shows how the template writes it."""
        self._quoted.add(len(self._parts))
        return f'{self.add(text)}"'

    def put_back(self, rendered: str) -> Iterator[str | bytes]:
        """The texts and images of a rendered text, in order; neighbouring texts are joined.

        The texts are marked: what the template wrote between the words is its own.
        """
        first, *rest = re.split(rf"part{self._nonce}n(\d+)n", rendered)
        pieces = [(first, True)]
        for number, after in zip(map(int, rest[::2]), rest[1::2], strict=True):
            part = self._parts[number]
            if number in self._quoted and isinstance(part, str) and (quote := QUOTE.match(after)):
                part, after = _as_written(part, quote[1]), after[quote.end() :]
            if isinstance(part, str):
                pieces += [(part, False), (after, True)]
                continue
            if text := Marked.of(pieces):
                yield text
            yield part
            pieces = [(after, True)]
        if text := Marked.of(pieces):
            yield text


def _as_written(text: str, backslashes: str) -> str:
    """A string as the template writes it, by the backslashes before a quote: none, one in JSON, three in JSON twice."""
    for _ in range((len(backslashes) + 1).bit_length() - 1):
        text = json.dumps(text, ensure_ascii=False)[1:-1]
    return text


def _for_template(message: Message, placeholders: _Placeholders) -> dict[str, Any]:
    """A message in the form that chat templates take, with placeholders for its texts and images."""
    if message.role == "assistant":
        return _assistant_for_template(message, placeholders)
    # Some templates write what a tool returned as a JSON string.
    is_result = message.role == "tool"
    content = "".join(
        placeholders.add_quoted(part) if is_result and isinstance(part, str) else placeholders.add(part)
        for part in message.parts
    )
    answered = {} if message.call_id is None else {"tool_call_id": message.call_id}
    return {"role": message.role, "content": content, **answered}


def _assistant_for_template(message: Message, placeholders: _Placeholders) -> dict[str, Any]:
    if message.verbatim is not None and _is_unedited(message, message.verbatim):
        return {"role": "assistant", "content": _hide_text(message.verbatim, placeholders, own=True)}
    content = "".join(
        _hide_text(part, placeholders) if isinstance(part, str) else placeholders.add(part) for part in message.parts
    )
    calls = [
        {
            "type": "function",
            "function": {
                "name": _hide_words(call.name, placeholders),
                "arguments": _hide_strings(call.arguments, placeholders),
            },
        }
        for call in message.calls
    ]
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def _hide_text(text: str, placeholders: _Placeholders, *, own: bool = False) -> str:
    # The thinking tags stay visible, because templates use them to cut earlier thinking out of the history.
    pieces = re.split("(</?think>)", text)
    return "".join(piece if piece in THINKING else placeholders.add(piece, own=own) for piece in pieces if piece)


def _is_unedited(message: Message, verbatim: str) -> bool:
    parsed = parse_reply(verbatim)
    return parsed.content == message.text and parsed.calls == [*message.calls]


def _hide_tool(tool: Mapping[str, Any], placeholders: _Placeholders) -> dict[str, Any]:
    # The name stays visible, because it shows whether the template has a place for tools.
    function = {
        key: part if key == "name" else _hide_words(part, placeholders) for key, part in tool["function"].items()
    }
    return {**tool, "function": function}


def _hide_words(value: Any, placeholders: _Placeholders) -> Any:
    """A value whose strings and keys are placeholders, but for names such as "object", which templates compare."""
    if isinstance(value, str):
        return value if PLAIN_NAME.fullmatch(value) else placeholders.add_quoted(value)
    if isinstance(value, Mapping):
        return {_hide_words(key, placeholders): _hide_words(part, placeholders) for key, part in value.items()}
    return [_hide_words(part, placeholders) for part in value] if isinstance(value, list | tuple) else value


def _hide_strings(value: Any, placeholders: _Placeholders) -> Any:
    if isinstance(value, str):
        return placeholders.add_quoted(value)
    if isinstance(value, Mapping):
        return {_hide_words(key, placeholders): _hide_strings(part, placeholders) for key, part in value.items()}
    return [_hide_strings(part, placeholders) for part in value] if isinstance(value, list) else value
