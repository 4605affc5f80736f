"""Tool calls in the text of a reply, in the Hermes form: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kamera_agent.errors import InputError
from kamera_agent.turns.message import BrokenCall, ToolCall
from kamera_agent.window.streamer import opening_of

OPENING = "<tool_call>"
CLOSING = "</tool_call>"
CALL = re.compile(rf"{OPENING}\s*(.*?)\s*(?:{CLOSING}|\Z)", re.DOTALL)


class ParsedReply(NamedTuple):
    """A reply taken apart: its content without calls, the calls, and what looks like a call and cannot be read."""

    content: str
    calls: list[ToolCall]
    broken: list[BrokenCall]


def parse_reply(text: str) -> ParsedReply:
    """Take a reply apart. A malformed call never raises; it is returned with the reason."""
    parsed = ParsedReply(_content(text), [], [])
    for match in CALL.finditer(text):
        call = match[1]
        if not match[0].endswith(CLOSING):
            # A reply that was cut off may be cut off inside the closing.
            call = call[: len(call) - opening_of(CLOSING, call)]
        try:
            parsed.calls.append(_read_call(call))
        except ValueError as error:
            parsed.broken.append(BrokenCall(match[0], str(error)))
    return parsed


def stream_content(pieces: Iterable[str]) -> Iterator[str]:
    """The content of a reply, piece by piece while the reply is generated: joined, that of parse_reply."""
    text, num_sent = "", 0
    for piece in pieces:
        text += piece
        if certain := _certain_content(text)[num_sent:]:
            num_sent += len(certain)
            yield certain
    if rest := _content(text)[num_sent:]:
        yield rest


def _content(text: str) -> str:
    """The reply without its calls. A reply with a call loses the blanks at its end, and those after an initial call."""
    start, call, _ = text.partition(OPENING)
    if not call:
        return text
    content = CALL.sub("", text).rstrip()
    # Blanks before an initial text stay: a stream has sent them before it can know that a call follows.
    return content if start.strip() else content.lstrip()


def _certain_content(text: str) -> str:
    """The part of the content that no continuation of the text changes. A call may follow and take the last blanks."""
    return _content(text[: len(text) - opening_of(OPENING, text)]).rstrip()


def _read_call(text: str) -> ToolCall:
    call = json.loads(text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError(f"A call must be an object with a name; got {text[:200]!r}.")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"The arguments of {call['name']!r} must be an object; got {json.dumps(arguments)[:200]}.")
    return ToolCall(call["name"], arguments)


def read_choice(tool_choice: str | dict[str, Any] | bool | None) -> str | None:
    """The name of a tool, "any", "auto" or "none", from the forms of LangChain, OpenAI and Anthropic."""
    match tool_choice:
        case True | "required":
            return "any"
        case False | None:
            return None
        case {"function": {"name": str(name)}} | {"type": "tool", "name": str(name)} | str(name):
            return name
        case {"type": "any" | "auto" | "none" as kind}:
            return str(kind)
        case _:
            raise InputError(f"tool_choice is {tool_choice!r}; use a tool's name, 'any', 'auto' or 'none'.")
