"""From the request of a client to what it asks."""

from __future__ import annotations

import json

from kamera_agent.serve.ask import SAMPLING, Ask
from kamera_agent.serve.completions.body import Call, ChatMessage, ChatRequest
from kamera_agent.serve.sent import CallForm, Sent, id_of
from kamera_agent.turns.blocks import read_content
from kamera_agent.turns.grammar import read_format
from kamera_agent.turns.habits import drop_habits

LENGTHS = ("max_tokens", "max_completion_tokens")


def read_chat(body: ChatRequest) -> Ask:
    """What a client asks. Raises InputError for what cannot be answered."""
    lengths = {name: value for name in LENGTHS if (value := getattr(body, name)) is not None}
    return Ask(
        [_read_message(message) for message in body.messages],
        options={
            **{name: getattr(body, name) for name in (*SAMPLING, "stop")},
            **drop_habits(lengths, ("max_tokens",), "A request"),
        },
        tools=body.tools or (),
        tool_choice=body.tool_choice,
        schema=read_format(body.response_format) if body.response_format else None,
    )


def _read_message(given: ChatMessage) -> Sent:
    role = "system" if given.role == "developer" else given.role
    calls = tuple(CallForm(call.function.name, _arguments(call), id_of(call.id)) for call in given.tool_calls or ())
    parts = tuple(read_content(given.content or ""))
    return Sent(role, parts, calls if role == "assistant" else (), given.tool_call_id)


def _arguments(call: Call) -> str:
    arguments = call.function.arguments
    return arguments or "{}" if isinstance(arguments, str | None) else json.dumps(arguments)
