"""From the request of a client to what it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from reprlib import repr as short

from kamera_agent.errors import InputError
from kamera_agent.serve.ask import Ask
from kamera_agent.serve.body import Block
from kamera_agent.serve.responses.body import ResponsesRequest
from kamera_agent.serve.responses.kept import Kept
from kamera_agent.serve.responses.tools import COMPUTER, read_choice_of, read_tool
from kamera_agent.serve.sent import CallForm, Sent, id_of
from kamera_agent.turns.blocks import read_content
from kamera_agent.turns.grammar import OBJECT
from kamera_agent.turns.keywords import Schema

ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


def read_response(body: ResponsesRequest, namespace: str | None, response_id: str, kept: Kept) -> Ask:
    """What a client asks. response_id: under which the conversation is kept.

    Raises InputError for what cannot be answered, and Refused for an unknown previous response.
    """
    before = kept.find(namespace, body.previous_response_id) if body.previous_response_id else ()
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    new = tuple(_read_items(items))
    instructions = [Sent("system", (body.instructions,))] if body.instructions else []

    def keep(reply: Sent) -> None:
        if body.store is not False:
            kept.keep(namespace, response_id, before, (*new, reply))

    return Ask(
        [*instructions, *before, *new],
        options={
            "max_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
        },
        tools=[read_tool(tool) for tool in body.tools or ()],
        tool_choice=read_choice_of(body.tool_choice),
        schema=_read_schema(body.text.format if body.text else None),
        keep=keep,
    )


def _read_schema(given: Block | None) -> Schema | None:
    match given:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return OBJECT
        case {"type": "json_schema", "schema": dict(schema)}:
            return schema
    raise InputError(f"text.format is {short(given)}; use type text, json_object, or json_schema with a schema.")


def _read_items(items: Sequence[Block]) -> Iterator[Sent]:
    """The messages of the items. A reply comes as several items in a row."""
    for is_reply, group in groupby(map(_read_item, items), lambda sent: sent.role == "assistant"):
        sents = [*group]
        if is_reply:
            parts = (part for sent in sents for part in sent.parts)
            yield Sent("assistant", tuple(parts), tuple(call for sent in sents for call in sent.calls))
        else:
            yield from sents


def _read_item(item: Block) -> Sent:
    match item:
        case {"role": str(role), "content": str() | list() as content} if role in ROLES:
            return Sent(ROLES[role], tuple(read_content(content)))
        case {"type": "reasoning"}:
            return Sent("assistant")
        case {"type": "function_call", "name": str(name), "arguments": str(arguments)}:
            return Sent("assistant", calls=(CallForm(name, arguments or "{}", id_of(item.get("call_id"))),))
        case {"type": "computer_call", "action": dict(action)}:
            return Sent("assistant", calls=(CallForm(COMPUTER, json.dumps(action), id_of(item.get("call_id"))),))
        case {"type": "computer_call", "actions": [*actions]}:
            return Sent(
                "assistant",
                calls=tuple(CallForm(COMPUTER, json.dumps(action), id_of(item.get("call_id"))) for action in actions),
            )
        case {"type": "function_call_output" | "computer_call_output", "call_id": str(call_id), "output": output}:
            content = [output] if isinstance(output, dict) else output
            return Sent("tool", tuple(read_content(content or "")), call_id=call_id)
    raise InputError(
        f"An item of the input is {short(item)}; use messages, function_call, function_call_output, computer_call and "
        "computer_call_output."
    )
