"""Tool calls in the text of a reply, in the Hermes form: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from uuid import uuid4

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

from kamera_agent.errors import InputError
from kamera_agent.window.streamer import opening_of

OPENING = "<tool_call>"
CLOSING = "</tool_call>"
CALL = re.compile(rf"{OPENING}\s*(.*?)\s*(?:{CLOSING}|\Z)", re.DOTALL)


class Said(NamedTuple):
    """A reply taken apart: what is said, what is called, and what looks like a call and is none."""

    content: str
    calls: list[ToolCall]
    invalid: list[InvalidToolCall]


def take_apart(text: str) -> Said:
    """The parts of a reply. A malformed call never raises; it is told with the reason."""
    if OPENING not in text:
        return Said(text, [], [])
    # A reply that is cut may be cut within the closing.
    whole = text[: len(text) - opening_of(CLOSING, text)]
    said = Said(CALL.sub("", whole).strip(), [], [])
    for match in CALL.finditer(whole):
        call_id = f"call_{uuid4().hex}"
        try:
            name, arguments = _read(match[1])
        except ValueError as error:
            said.invalid.append(invalid_tool_call(name=None, args=match[1], id=call_id, error=str(error)))
        else:
            said.calls.append(tool_call(name=name, args=arguments, id=call_id))
    return said


def _read(text: str) -> tuple[str, dict[str, object]]:
    call = json.loads(text)
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError(f"A call is an object with a name; got {text[:200]!r}.")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        raise ValueError(f"The arguments of {call['name']!r} are an object; got {json.dumps(arguments)[:200]}.")
    return call["name"], arguments


def certain(text: str) -> str:
    """How much of a growing reply is certainly no call: all up to the first sign of one."""
    start = text.find(OPENING)
    return text[: start if start >= 0 else len(text) - opening_of(OPENING, text)]


def read_choice(tool_choice: str | dict[str, Any] | bool | None) -> str | None:
    """The name of a tool, "any", "auto" or "none", for all that LangChain, OpenAI and Anthropic call it."""
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
