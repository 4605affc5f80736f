"""Tools as callers describe them, and which of them is to be called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import InputError
from kamera_agent.options import several


def check_tools(tools: Any) -> None:
    """Raise InputError unless these are tools in OpenAI's form, of what JSON can hold."""
    for tool in several("tools", tools):
        match tool:
            case {"function": {"name": str(name), **rest}} if name and name.isprintable():
                if not isinstance(rest.get("parameters"), Mapping | None):
                    raise InputError(f"The parameters of {name!r} are {short(rest['parameters'])}; use a JSON schema.")
                try:
                    json.dumps(tool)
                except (TypeError, ValueError, RecursionError) as error:
                    raise InputError(f"The tool {name!r} is no JSON: {error}.") from error
            case _:
                form = "{'type': 'function', 'function': {'name': ..., 'parameters': ...}}"
                raise InputError(f"tools has {short(tool)}; use {form}.")


def read_choice(tool_choice: Any) -> str | None:
    """The name of a tool, "any", "auto" or "none", from the forms of LangChain, OpenAI, Anthropic, Bedrock and Google.

    Raises InputError for another form, and for a choice among several names.
    """
    match tool_choice:
        case True | "required":
            return "any"
        case False | None:
            return None
        case (
            {"function": {"name": str(name)}}
            | {"type": "tool" | "function", "name": str(name)}
            | {"tool": {"name": str(name)}}
        ):
            return name
        case [str(name)] | str(name):
            return name
        case {"type": "any" | "auto" | "none" as kind}:
            return str(kind)
        case {"any": _}:
            return "any"
        case {"auto": _}:
            return "auto"
        case _:
            raise InputError(f"tool_choice is {short(tool_choice)}; use a tool's name, 'any', 'auto' or 'none'.")
