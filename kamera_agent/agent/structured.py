"""Structured output as JSON: what a reply is held to, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, TypeGuard

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

# How OpenAI, Anthropic and Bedrock wrap the schema of a tool.
WRAPPED = {"function", "parameters", "input_schema", "toolSpec"}

# What a schema without a title is called.
REPLY = "reply"

# Any object. Its values are spelled out, so that what has no bound can be given one.
OBJECT: dict[str, Any] = {
    "$ref": "#/$defs/object",
    "$defs": {
        "object": {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
        "value": {
            "anyOf": [
                {"type": "string"},
                {"type": "number"},
                {"type": "boolean"},
                {"type": "null"},
                {"type": "array", "items": {"$ref": "#/$defs/value"}},
                {"$ref": "#/$defs/object"},
            ]
        },
    },
}


def titled(schema: dict[str, Any] | type) -> dict[str, Any] | type:
    """The schema with a title, which a tool is called by; only a JSON schema may be without."""
    return {"title": REPLY, **schema} if _is_json_schema(schema) else schema


def make_format(schema: dict[str, Any] | type | None) -> dict[str, Any]:
    """A response_format, as OpenAI has it. schema: None is any object."""
    if schema is None:
        return {"type": "json_object"}
    told = _json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": told.get("title", REPLY), "schema": told}}


def _json_schema(schema: Any) -> dict[str, Any]:
    if _is_json_schema(schema):
        return dict(schema)
    # LangChain writes definitions out in full, which a schema that holds itself does not survive.
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    return convert_to_json_schema(schema)


def _is_json_schema(schema: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(schema, dict) and not schema.keys() & WRAPPED


def read_format(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of a response_format: in OpenAI's envelope, or a schema as it is. None where any text will do."""
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return OBJECT
        case {"json_schema": {"schema": schema}}:
            return dict(schema)
        case _:
            return response_format


def read_with(
    model: Runnable[Any, Any], schema: dict[str, Any] | type | None, *, include_raw: bool
) -> Runnable[Any, Any]:
    """A model whose replies are read: as an instance of a pydantic class, else as a dict.

    include_raw: a dict with "raw", "parsed" and "parsing_error" instead; then nothing is raised.
    """
    parser: JsonOutputParser = (
        PydanticOutputParser(pydantic_object=schema)
        if isinstance(schema, type) and is_basemodel_subclass(schema)
        else JsonOutputParser()
    )
    if not include_raw:
        return model | parser
    read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | read.with_fallbacks([unread], exception_key="parsing_error")
