"""Messages of a lesson: those of the user with the places of their parts, those of the model token for token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from langchain_core.messages import AIMessage, HumanMessage

from kamera_agent.agent.messages import METADATA, SAID
from kamera_agent.turns.tool_calls import CLOSING, OPENING, parse_reply

from .speech import Value

# Marks around values and around the mention of a tool, while a message is made. No other text has them.
VALUE, MENTION = "\ue000", "\ue001"


def call_of(name: str, values: Mapping[str, Value]) -> str:
    """A call as the grammar writes it."""
    call = json.dumps({"name": name, "arguments": dict(values)}, ensure_ascii=False, separators=(",", ":"))
    return f"{OPENING}\n{call}\n{CLOSING}"


def mark(kind: str, part: Value) -> str:
    """A marked value or mention."""
    return f"{kind}{part}{kind}"


def user_message(marked: str) -> HumanMessage:
    """A message of the user without its marks. Their places are kept beside it, for the training alone."""
    text = ""
    spans: dict[str, list[tuple[int, int]]] = {VALUE: [], MENTION: []}
    kinds = [None, *re.findall(f"[{VALUE}{MENTION}]", marked)]
    for index, (kind, part) in enumerate(zip(kinds, re.split(f"[{VALUE}{MENTION}]", marked), strict=True)):
        if kind and index % 2:
            spans[kind].append((len(text), len(text) + len(part)))
        text += part
    return HumanMessage(text, additional_kwargs=spans)


def model_message(text: str) -> AIMessage:
    """A message of the model, with its text token for token."""
    parsed = parse_reply(text)
    calls = [
        {"name": call.name, "args": dict(call.arguments), "id": f"call_{number}"}
        for number, call in enumerate(parsed.calls)
    ]
    return AIMessage(parsed.content, tool_calls=calls, response_metadata={METADATA: {SAID: text}})
