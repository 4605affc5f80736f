"""What is said in a lesson: by the user, with notes of where its parts stand, and by the model, token for token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from langchain_core.messages import AIMessage, HumanMessage

from kamera_agent.agent.messages import METADATA, SAID
from kamera_agent.turns.tool_calls import CLOSING, OPENING, parse_reply

from .speech import Value

# Around values and around what tells the tool, while a message is made up; no text holds them.
VALUE, MENTION = "\ue000", "\ue001"


def call_of(name: str, values: Mapping[str, Value]) -> str:
    """A call as the grammar writes it."""
    call = json.dumps({"name": name, "arguments": dict(values)}, ensure_ascii=False, separators=(",", ":"))
    return f"{OPENING}\n{call}\n{CLOSING}"


def mark(kind: str, part: Value) -> str:
    """A value or a mention, marked."""
    return f"{kind}{part}{kind}"


def asked(marked: str) -> HumanMessage:
    """A user's message, without its marks. What they told is noted beside it, for the training alone."""
    text = ""
    spans: dict[str, list[tuple[int, int]]] = {VALUE: [], MENTION: []}
    kinds = [None, *re.findall(f"[{VALUE}{MENTION}]", marked)]
    for index, (kind, part) in enumerate(zip(kinds, re.split(f"[{VALUE}{MENTION}]", marked), strict=True)):
        if kind and index % 2:
            spans[kind].append((len(text), len(text) + len(part)))
        text += part
    return HumanMessage(text, additional_kwargs=spans)


def said(text: str) -> AIMessage:
    """A message of the model, token for token."""
    parsed = parse_reply(text)
    calls = [
        {"name": call.name, "args": dict(call.arguments), "id": f"call_{number}"}
        for number, call in enumerate(parsed.calls)
    ]
    return AIMessage(parsed.content, tool_calls=calls, response_metadata={METADATA: {SAID: text}})
