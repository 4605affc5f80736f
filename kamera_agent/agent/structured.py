"""Structured output: from LangChain's kinds of schema to a response_format, and from a reply to an instance."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeGuard

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

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


def _json_schema(schema: Any) -> dict[str, Any]:
    if _is_json_schema(schema):
        return dict(schema)
    # Not by LangChain: it expands definitions in place and fails for a recursive schema.
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema.model_json_schema()
    return convert_to_json_schema(schema)


def _is_json_schema(schema: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(schema, dict) and not schema.keys() & WRAPPED


def read_with(
    model: Runnable[Any, Any], schema: dict[str, Any] | type | None, *, include_raw: bool
) -> Runnable[Any, Any]:
    """The model followed by a parser: to an instance of a pydantic class, else to a dict.

    include_raw: return a dict with "raw", "parsed" and "parsing_error" instead and raise nothing.
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
