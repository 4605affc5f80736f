"""Tools as clients of Responses declare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import InputError
from kamera_agent.serve.body import Block
from kamera_agent.turns.keywords import Schema

# The name under which the model knows a tool of these types, and the types.
COMPUTER = "computer"
COMPUTERS = ("computer_use_preview", "computer")
# A screen whose size the client does not tell.
UNKNOWN = 1 << 14


def computer_of(tools: Sequence[Block]) -> str | None:
    """The type of the computer among some tools; None where there is none."""
    return next((tool["type"] for tool in tools if tool.get("type") in COMPUTERS), None)


def read_tool(tool: Block) -> Schema:
    """A tool in the form of Chat Completions. Raises InputError for a tool that OpenAI's own servers would run."""
    match tool:
        case {"type": "function", "name": str(name)}:
            described = {key: tool[key] for key in ("description", "parameters") if tool.get(key) is not None}
            return {"type": "function", "function": {"name": name, **described}}
        case {"type": "computer_use_preview" | "computer"}:
            return _computer(tool)
    raise InputError(
        f"The tool {short(tool.get('type'))} cannot be served; declare functions, or computer_use_preview with the "
        "size of the display."
    )


def read_choice_of(choice: str | Block | None) -> str | Block | None:
    """A tool_choice in the form of Chat Completions."""
    return COMPUTER if isinstance(choice, Mapping) and choice.get("type") in COMPUTERS else choice


def _computer(tool: Block) -> Schema:
    """The tool that acts on a screen. Source: the actions of OpenAI's SDK, ResponseComputerToolCall."""
    width, height = (tool.get(f"display_{side}") for side in ("width", "height"))
    size = f" whose screen has {width} x {height} pixels" if width and height else ""
    x, y = (
        {"type": "integer", "minimum": 0, "maximum": (side if isinstance(side, int) and side > 0 else UNKNOWN) - 1}
        for side in (width, height)
    )
    text, keys = {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
    path = {"type": "array", "items": _object({"x": x, "y": y}), "minItems": 2}
    scrolls = {"type": "integer", "minimum": -UNKNOWN, "maximum": UNKNOWN}
    actions = [
        _action("click", button={"enum": ["left", "right", "wheel", "back", "forward"]}, x=x, y=y),
        _action("double_click", x=x, y=y),
        _action("drag", path=path),
        _action("keypress", keys=keys),
        _action("move", x=x, y=y),
        _action("screenshot"),
        _action("scroll", x=x, y=y, scroll_x=scrolls, scroll_y=scrolls),
        _action("type", text=text),
        _action("wait"),
    ]
    about = f"Use the mouse and the keyboard of a computer{size}."
    return {"type": "function", "function": {"name": COMPUTER, "description": about, "parameters": {"anyOf": actions}}}


def _action(kind: str, **properties: Schema) -> Schema:
    return _object({"type": {"const": kind}, **properties})


def _object(properties: Mapping[str, Any]) -> Schema:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
