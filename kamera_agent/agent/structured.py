"""Structured output: from LangChain's kinds of schema to a response_format, and from a reply to an instance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from reprlib import repr as short
from typing import Any, TypeGuard

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    JsonOutputToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableGenerator, RunnablePassthrough
from langchain_core.runnables.utils import AddableDict
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from kamera_agent.errors import InputError
from kamera_agent.options import several

# The keys under which OpenAI, Anthropic and Bedrock wrap the schema of a tool.
WRAPPED = {"function", "parameters", "input_schema", "toolSpec"}

# The name of a schema without a title.
REPLY = "reply"


def titled(schema: dict[str, Any] | type) -> dict[str, Any] | type:
    """The schema with a title, which names the tool. Only a JSON schema may lack one."""
    return {"title": REPLY, **schema} if _is_json_schema(schema) else schema


def make_format(schema: dict[str, Any] | type | None) -> dict[str, Any]:
    """A response_format in OpenAI's form. schema: None stands for any object."""
    if schema is None:
        return {"type": "json_object"}
    json_schema = _json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": json_schema.get("title", REPLY), "schema": json_schema}}


def describe_tools(tools: Any) -> list[dict[str, Any]]:
    """Tools in OpenAI's form, without what only marks a place for a provider's cache. Raises InputError."""
    marked = ({"cachePoint"}, {"cache_point"})
    return [
        describe_tool(tool)
        for tool in several("tools", tools)
        if not (isinstance(tool, Mapping) and set(tool) in marked)
    ]


def describe_tool(tool: Any) -> dict[str, Any]:
    """A tool in OpenAI's form. Its parameters are its whole schema.

    Raises InputError for what LangChain cannot convert, and for a tool that runs at its provider.
    """
    described = _converted(tool)
    is_class = isinstance(tool, type) and issubclass(tool, BaseModel)
    if is_class or (_is_json_schema(tool) and "title" in tool):
        schema = _json_schema(tool)
        # LangChain takes the properties only, so without them (anyOf, a reference to itself) nothing would be left.
        if "properties" not in schema:
            parameters = {name: part for name, part in schema.items() if name not in ("title", "description")}
            described["function"]["parameters"] = parameters
    return described


def _converted(tool: Any) -> dict[str, Any]:
    try:
        described = convert_to_openai_tool(tool)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{short(tool)} is no tool; use a function, a class, or a schema as OpenAI, Anthropic or Bedrock take it."
        ) from error
    # OpenAI's Responses write the function's parts beside the type.
    if described.get("type") == "function" and "name" in described:
        return {"type": "function", "function": {key: part for key, part in described.items() if key != "type"}}
    if "function" not in described or _runs_elsewhere(tool):
        raise InputError(f"{short(tool)} is a tool that its provider runs; leave it out.")
    return described


def _runs_elsewhere(tool: Any) -> bool:
    """Whether a tool is one of Anthropic's own, such as {"type": "bash_20250124", "name": "bash"}."""
    if not isinstance(tool, Mapping) or "name" not in tool or tool.keys() & {"parameters", *WRAPPED}:
        return False
    return tool.get("type") not in (None, "custom")


def _json_schema(schema: Any) -> dict[str, Any]:
    if _is_json_schema(schema):
        return dict(schema)
    # Not by LangChain: it expands definitions in place and fails for a recursive schema.
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    try:
        return convert_to_json_schema(schema)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{short(schema)} is no schema; use a class or a JSON schema.") from error


def _is_json_schema(schema: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(schema, dict) and not schema.keys() & WRAPPED


def read_json(
    model: Runnable[Any, Any], schema: dict[str, Any] | type | None, *, include_raw: bool
) -> Runnable[Any, Any]:
    """A model that writes JSON, followed by a parser: to an instance of a pydantic class, else to a dict.

    include_raw: return a dict with "raw", "parsed" and "parsing_error" instead and raise nothing.
    """
    parser: JsonOutputParser = (
        PydanticOutputParser(pydantic_object=schema)
        if isinstance(schema, type) and is_basemodel_subclass(schema)
        else JsonOutputParser()
    )
    return _read(model, _checked(_require_json) | parser, include_raw=include_raw)


def read_call(model: Runnable[Any, Any], schema: dict[str, Any] | type, *, include_raw: bool) -> Runnable[Any, Any]:
    """A model that calls a tool of this schema, followed by a parser, as read_json."""
    parser: JsonOutputToolsParser
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        parser = PydanticToolsParser(tools=[schema], first_tool_only=True)
    else:
        name = describe_tool(schema)["function"]["name"]
        parser = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
    return _read(model, _checked(_require_call) | parser, include_raw=include_raw)


def _read(model: Runnable[Any, Any], parser: Runnable[Any, Any], *, include_raw: bool) -> Runnable[Any, Any]:
    if not include_raw:
        return model | parser

    def attempt(reply: dict[str, Any]) -> tuple[Any, ValueError | None]:
        try:
            return parser.invoke(reply["raw"]), None
        except ValueError as error:  # LangChain's and pydantic's.
            return None, error

    # Not a fallback of LangChain's: it takes no effect once a stream has begun.
    return (
        model
        | RunnableGenerator(_as_raw, _as_raw_async)
        | RunnablePassthrough.assign(
            parsed=lambda reply: attempt(reply)[0], parsing_error=lambda reply: attempt(reply)[1]
        )
    )


# Not a RunnableMap: it takes no options of a call.
def _as_raw(chunks: Iterator[AIMessage]) -> Iterator[AddableDict]:
    for chunk in chunks:
        yield AddableDict(raw=chunk)


async def _as_raw_async(chunks: AsyncIterator[AIMessage]) -> AsyncIterator[AddableDict]:
    async for chunk in chunks:
        yield AddableDict(raw=chunk)


def _checked(require: Callable[[AIMessage], None]) -> Runnable[Any, Any]:
    """Passes a reply on, whole or in chunks, and raises at its end if it is not whole.

    LangChain's parsers complete JSON that was cut off, which is right while it is streamed, but not at the end.
    """

    def check(chunks: Iterator[AIMessage]) -> Iterator[AIMessage]:
        total: Any = None
        for chunk in chunks:
            total = chunk if total is None else total + chunk
            yield chunk
        if total is not None:
            require(total)

    async def acheck(chunks: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
        total: Any = None
        async for chunk in chunks:
            total = chunk if total is None else total + chunk
            yield chunk
        if total is not None:
            require(total)

    return RunnableGenerator(check, acheck)


def _require_json(reply: AIMessage) -> None:
    try:
        value = json.loads(reply.text)
    except ValueError as error:
        raise _unreadable(reply, f"is no JSON ({error})") from error
    # A number does not show where it ends.
    if _was_cut(reply) and type(value) in (int, float):
        raise _unreadable(reply, "may go on")


def _require_call(reply: AIMessage) -> None:
    if not reply.tool_calls:
        raise _unreadable(reply, "has no whole call")


def _was_cut(reply: AIMessage) -> bool:
    return reply.response_metadata.get("finish_reason") == "length"


def _unreadable(reply: AIMessage, problem: str) -> OutputParserException:
    cut = " and was cut off by max_tokens; allow it more" if _was_cut(reply) else ""
    text = reply.text or "".join(call["args"] or "" for call in reply.invalid_tool_calls)
    return OutputParserException(f"The reply {problem}{cut}: {text[:200]!r}", llm_output=text)
