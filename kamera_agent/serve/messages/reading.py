"""From the request of a client to what it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from reprlib import repr as short

from kamera_agent.errors import InputError
from kamera_agent.serve.ask import Ask
from kamera_agent.serve.body import Block
from kamera_agent.serve.messages.body import GivenMessage, MessagesRequest
from kamera_agent.serve.messages.tools import read_tool
from kamera_agent.serve.sent import CallForm, Sent, id_of
from kamera_agent.turns.blocks import read_content
from kamera_agent.turns.keywords import Schema

RESULT, CALL = "tool_result", "tool_use"


def read_messages(body: MessagesRequest) -> Ask:
    """What a client asks. Raises InputError for what cannot be answered."""
    if body.messages and body.messages[-1].role == "assistant":
        raise InputError("The last message is the assistant's, and a reply cannot be begun for it; end with the user.")
    system = [Sent("system", parts)] if (parts := tuple(read_content(body.system or ""))) else []
    return Ask(
        [*system, *(sent for message in body.messages for sent in _read_message(message))],
        options={
            "max_tokens": body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stop": body.stop_sequences,
        },
        tools=[read_tool(tool) for tool in body.tools or ()],
        tool_choice=body.tool_choice,
        schema=_read_schema(body.output_format or (body.output_config.format if body.output_config else None)),
    )


def _read_schema(given: Block | None) -> Schema | None:
    match given:
        case None:
            return None
        case {"type": "json_schema", "schema": dict(schema)}:
            return schema
    raise InputError(f"The format of the output is {short(given)}; use type json_schema, with a schema.")


def _read_message(given: GivenMessage) -> Iterator[Sent]:
    """The messages of one: results of tools are messages of their own."""
    if isinstance(given.content, str):
        yield Sent(given.role, tuple(read_content(given.content)))
        return
    if given.role == "assistant":
        calls = tuple(_read_call(block) for block in given.content if block.get("type") == CALL)
        yield Sent("assistant", tuple(read_content(given.content)), calls)
        return
    for is_result, blocks in groupby(given.content, lambda block: block.get("type") == RESULT):
        if is_result:
            yield from map(_read_result, blocks)
        else:
            yield Sent(given.role, tuple(read_content([*blocks])))


def _read_result(block: Block) -> Sent:
    call_id = block.get("tool_use_id")
    content: str | Sequence[str | Block] = block.get("content") or ""
    return Sent("tool", tuple(read_content(content)), call_id=id_of(call_id))


def _read_call(block: Block) -> CallForm:
    match block:
        case {"name": str(name), "input": dict(arguments)}:
            return CallForm(name, json.dumps(arguments), id_of(block.get("id")))
    raise InputError(f"A tool_use block is {short(block)}; use one with a name and an object as its input.")
