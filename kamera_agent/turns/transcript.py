"""From messages to the contents of a window, through the model's own chat template.

Texts and images go through the template as placeholders and are put back afterwards. A text that looks like the
template's own markers therefore stays text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.turns.message import Message
from kamera_agent.turns.tool_calls import parse_reply
from kamera_agent.window.content import Content, ImageContent, TextContent

THINKING = ("<think>", "</think>")


class Transcript(NamedTuple):
    """The system prompt and the contents of a window."""

    system: str
    contents: list[Content]


def transcribe(family: Family, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Transcript:
    """Return the system prompt and the window contents for these messages. tools: in OpenAI's form.

    Raises InputError for no messages, for an image in a system message, and for tools that the chat template has no
    place for.
    """
    if not messages:
        raise InputError("There are no messages; send at least one.")
    placeholders = _Placeholders()
    turns = family.chat.turns([_for_template(message, placeholders) for message in messages], tools)
    system, contents = family.chat.default_system, []
    for number, (role, text) in enumerate(turns):
        parts = [*placeholders.put_back(text)]
        if number == 0 and role == "system":
            if not all(isinstance(part, str) for part in parts):
                raise InputError("A system message holds text only; put the image into a user message.")
            system = "".join(map(str, parts))
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

    def add(self, part: str | bytes) -> str:
        self._parts.append(part)
        return f"part{self._nonce}n{len(self._parts) - 1}n"

    def put_back(self, rendered: str) -> Iterator[str | bytes]:
        """The texts and images of a rendered text, in order; neighbouring texts are joined."""
        text = ""
        for index, piece in enumerate(re.split(rf"part{self._nonce}n(\d+)n", rendered)):
            part = self._parts[int(piece)] if index % 2 else piece
            if isinstance(part, str):
                text += part
                continue
            if text:
                yield text
                text = ""
            yield part
        if text:
            yield text


def _for_template(message: Message, placeholders: _Placeholders) -> dict[str, Any]:
    """A message in the form that chat templates take, with placeholders for its texts and images."""
    if message.role == "assistant":
        return _assistant_for_template(message, placeholders)
    content = "".join(placeholders.add(part) for part in message.parts)
    answered = {} if message.call_id is None else {"tool_call_id": message.call_id}
    return {"role": message.role, "content": content, **answered}


def _assistant_for_template(message: Message, placeholders: _Placeholders) -> dict[str, Any]:
    if message.verbatim is not None and _is_unedited(message, message.verbatim):
        return {"role": "assistant", "content": _hide_text(message.verbatim, placeholders)}
    content = "".join(
        _hide_text(part, placeholders) if isinstance(part, str) else placeholders.add(part) for part in message.parts
    )
    calls = [
        {
            "type": "function",
            "function": {"name": call.name, "arguments": _hide_strings(call.arguments, placeholders)},
        }
        for call in message.calls
    ]
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def _hide_text(text: str, placeholders: _Placeholders) -> str:
    # The thinking tags stay visible, because templates use them to cut earlier thinking out of the history.
    pieces = re.split("(</?think>)", text)
    return "".join(piece if piece in THINKING else placeholders.add(piece) for piece in pieces if piece)


def _is_unedited(message: Message, verbatim: str) -> bool:
    parsed = parse_reply(verbatim)
    return parsed.content == message.text and parsed.calls == [*message.calls]


def _hide_strings(value: Any, placeholders: _Placeholders) -> Any:
    if isinstance(value, str):
        return placeholders.add(value)
    if isinstance(value, Mapping):
        return {key: _hide_strings(item, placeholders) for key, item in value.items()}
    return [_hide_strings(item, placeholders) for item in value] if isinstance(value, list) else value
