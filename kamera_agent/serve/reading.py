"""From the request of a client to a request of turns/."""

from __future__ import annotations

import json
from typing import cast

from kamera_agent.serve.client import Client, Place, place_of
from kamera_agent.serve.protocol import Call, ChatMessage, ChatRequest
from kamera_agent.serve.said import CallForm, Said
from kamera_agent.turns.blocks import read_content
from kamera_agent.turns.chat import MAX_TOKENS, Request
from kamera_agent.turns.grammar import read_format
from kamera_agent.turns.habits import SERVED, check_served, drop_habits
from kamera_agent.turns.message import Message, ToolCall
from kamera_agent.turns.tools import read_choice
from kamera_agent.window.options import read_options
from kamera_agent.window.sampler import SamplingOptions

# Fields that would give a reply another form. All others that are not served, such as penalties, are ignored.
FORMING = ("best_of", "echo", "logprobs", "modalities", "n")
SAMPLING = ("temperature", "top_p", "top_k", "seed")
LENGTHS = ("max_tokens", "max_completion_tokens")


def ignored_by(asked: ChatRequest) -> list[str]:
    """Names of the fields that change nothing here, but for those that are null or ask for what every reply has.

    Raises InputError for a field that cannot be ignored.
    """
    others = {name: value for name, value in (asked.model_extra or {}).items() if value is not None}
    for name in FORMING:
        check_served(name, others.get(name), "This server")
    return [name for name, value in others.items() if name not in SERVED or value != SERVED[name]]


def read_request(asked: ChatRequest, client: Client, said: Said) -> Request:
    """The request of a client. Raises InputError for what cannot be answered."""
    messages = [_read_message(message) for message in asked.messages]
    place = place_of(client, messages)
    lengths = {name: value for name in LENGTHS if (value := getattr(asked, name)) is not None}
    options = {name: getattr(asked, name) for name in (*SAMPLING, "stop")}
    answer = read_options({**options, **drop_habits(lengths, ("max_tokens",), "A request")})
    return Request(
        [_remembered(given, said, place) or message for given, message in zip(asked.messages, messages, strict=True)],
        conversation=place.conversation,
        namespace=place.namespace,
        tools=asked.tools or (),
        tool_choice=read_choice(asked.tool_choice),
        schema=read_format(asked.response_format) if asked.response_format else None,
        max_tokens=answer.get("max_tokens", MAX_TOKENS),
        stop=answer.get("stop", ()),
        sampling=cast(SamplingOptions, {name: answer[name] for name in SAMPLING if name in answer}),
    )


def _read_message(given: ChatMessage) -> Message:
    parts = tuple(read_content(given.content or ""))
    if given.role == "assistant":
        calls = (_read_call(form) for form in _forms(given))
        return Message("assistant", parts, tuple(call for call in calls if call))
    role = "system" if given.role == "developer" else given.role
    return Message(role, parts, call_id=given.tool_call_id)


def _remembered(given: ChatMessage, said: Said, place: Place) -> Message | None:
    """The reply that an assistant message is; None where it is none, or was edited."""
    if given.role != "assistant":
        return None
    texts = [part for part in read_content(given.content or "") if isinstance(part, str)]
    return said.find(place, "".join(texts), _forms(given))


def _forms(given: ChatMessage) -> list[CallForm]:
    return [CallForm(call.function.name, _arguments(call)) for call in given.tool_calls or ()]


def _arguments(call: Call) -> str:
    arguments = call.function.arguments
    return arguments or "{}" if isinstance(arguments, str | None) else json.dumps(arguments)


def _read_call(form: CallForm) -> ToolCall | None:
    """A call; None for one that the model did not finish, which no template can show."""
    try:
        arguments = json.loads(form.arguments, strict=False)
    except (ValueError, RecursionError):
        return None
    return ToolCall(form.name, arguments) if form.name and isinstance(arguments, dict) else None
