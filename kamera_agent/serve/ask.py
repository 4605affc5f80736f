"""What a client asks, in no protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kamera_agent.serve.client import Client, place_of
from kamera_agent.serve.said import Said
from kamera_agent.serve.sent import Sent
from kamera_agent.turns.chat import MAX_TOKENS, Request
from kamera_agent.turns.keywords import Schema
from kamera_agent.turns.tools import read_choice
from kamera_agent.window.options import read_options
from kamera_agent.window.sampler import SamplingOptions

SAMPLING = ("temperature", "top_p", "top_k", "seed")


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
        return Request(
            [ours or message for ours, message in zip(said.find(place, self.messages), messages, strict=True)],
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
