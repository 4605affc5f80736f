"""Tool calls in the text of a reply, in the Hermes form: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
import re
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
    if OPENING not in text:
        return ParsedReply(text, [], [])
    # A reply that is cut may be cut within the closing.
    whole = text[: len(text) - opening_of(CLOSING, text)]
    parsed = ParsedReply(CALL.sub("", whole).strip(), [], [])
    for match in CALL.finditer(whole):
        try:
            parsed.calls.append(_read_call(match[1]))
        except ValueError as error:
            parsed.broken.append(BrokenCall(match[1], str(error)))
    return parsed


def _read_call(text: str) -> ToolCall:
    call = json.loads(text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError(f"A call must be an object with a name; got {text[:200]!r}.")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"The arguments of {call['name']!r} must be an object; got {json.dumps(arguments)[:200]}.")
    return ToolCall(call["name"], arguments)


def certain(text: str) -> str:
    """The part of a growing reply that is certainly not a call: everything before the first sign of one."""
    start = text.find(OPENING)
    return text[: start if start >= 0 else len(text) - opening_of(OPENING, text)]


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
