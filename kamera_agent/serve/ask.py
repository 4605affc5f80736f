"""What a client asks, in no protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from kamera_agent.serve.client import Client, place_of
from kamera_agent.serve.said import CallForm, Said
from kamera_agent.turns.chat import MAX_TOKENS, Request
from kamera_agent.turns.keywords import Schema
from kamera_agent.turns.message import Message, ToolCall
from kamera_agent.turns.tools import read_choice
from kamera_agent.window.options import read_options
from kamera_agent.window.sampler import SamplingOptions

SAMPLING = ("temperature", "top_p", "top_k", "seed")


class Sent(NamedTuple):
    """A message as a client sends it. parts: texts and encoded images, in order. calls: of an assistant message."""

    role: str
    parts: tuple[str | bytes, ...] = ()
    calls: tuple[CallForm, ...] = ()
    call_id: str | None = None

    @property
    def message(self) -> Message:
        """The message for a transcript."""
        calls = (_read_call(form) for form in self.calls)
        return Message(self.role, self.parts, tuple(call for call in calls if call), self.call_id)

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Ask:
    """A conversation, and how it is to be answered.

    options: the options of an answer; None is the default. tools: in OpenAI's form. tool_choice: in any form
    that read_choice() knows. schema: as of Request. keep: gets the reply as the client has it, before its last event.
    """

    messages: Sequence[Sent]
    options: Mapping[str, Any]
    tools: Sequence[Schema] = ()
    tool_choice: Any = None
    schema: Schema | None = None
    keep: Callable[[Sent], None] = field(default=lambda _: None)

    def request(self, client: Client, said: Said) -> Request:
        """The request for a chat. A reply that comes back is what the model said. Raises InputError."""
        messages = [sent.message for sent in self.messages]
        place = place_of(client, messages)
        answer = read_options(self.options)
        remembered = [
            said.find(place, sent.text, sent.calls) if sent.role == "assistant" else None for sent in self.messages
        ]
        return Request(
            [ours or message for ours, message in zip(remembered, messages, strict=True)],
            conversation=place.conversation,
            namespace=place.namespace,
            demand=client.demand,
            tools=self.tools,
            tool_choice=read_choice(self.tool_choice),
            schema=self.schema,
            max_tokens=answer.get("max_tokens", MAX_TOKENS),
            stop=answer.get("stop", ()),
            sampling=cast(SamplingOptions, {name: answer[name] for name in SAMPLING if name in answer}),
        )


def _read_call(form: CallForm) -> ToolCall | None:
    """A call; None for one that the model did not finish, which no template can show."""
    arguments = form.read()
    return ToolCall(form.name, arguments) if form.name and arguments is not None else None
