"""Tools as Anthropic's clients declare them. Those of a type that Anthropic defines get the schema of their input here.

Source: the types of Anthropic's SDK, and https://platform.claude.com/docs/en/agents-and-tools/tool-use.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from kamera_agent.errors import InputError
from kamera_agent.serve.body import Block
from kamera_agent.turns.keywords import Schema

ACTIONS = (
    *("key", "type", "mouse_move", "left_click", "left_click_drag", "right_click", "middle_click", "double_click"),
    *("screenshot", "cursor_position"),
)
# What the later versions of the tool know besides.
ADDED = {
    "20241022": (),
    "20250124": ("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click"),
    "20251124": ("left_mouse_down", "left_mouse_up", "scroll", "hold_key", "wait", "triple_click", "zoom"),
}
BASH = {"command": {"type": "string"}, "restart": {"type": "boolean"}}
EDITING = {
    "command": {"enum": ["view", "create", "str_replace", "insert"]},
    "path": {"type": "string"},
    "file_text": {"type": "string"},
    "old_str": {"type": "string"},
    "new_str": {"type": "string"},
    "insert_line": {"type": "integer"},
    "insert_text": {"type": "string"},
    "view_range": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
}


def read_tool(tool: Block) -> Schema:
    """A tool in OpenAI's form. Raises InputError for a tool that Anthropic's own servers would run."""
    match tool:
        case {"name": str(name), "input_schema": Mapping() as schema}:
            return _function(name, tool.get("description") or "", schema)
        case {"type": str(kind), "display_width_px": int(width), "display_height_px": int(height)} if (
            version := kind.removeprefix("computer_")
        ) in ADDED:
            about = f"Use the mouse and the keyboard of a computer whose screen has {width} x {height} pixels."
            return _function("computer", about, _object(_using(version, width, height), "action"))
        case {"type": str(kind)} if kind.startswith("bash_"):
            return _function("bash", "Run a command in a shell, or restart the shell.", _object(BASH))
        case {"type": str(kind), "name": str(name)} if kind.startswith("text_editor_"):
            return _function(name, "View, create and edit files.", _object(EDITING, "command", "path"))
    raise InputError(
        f"The tool {short(tool.get('name'))} of type {short(tool.get('type'))} cannot be served; declare a tool with a "
        "name and an input_schema, computer_20250124 or computer_20251124 with the size of the display, bash_20250124 "
        "or text_editor_20250728."
    )


def _using(version: str, width: int, height: int) -> dict[str, Any]:
    """The properties of an action on a screen."""
    point = {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": 0, "maximum": size - 1} for size in (width, height)],
        "items": False,
        "minItems": 2,
    }
    properties: dict[str, Any] = {
        "action": {"enum": [*ACTIONS, *ADDED[version]]},
        "coordinate": point,
        "start_coordinate": point,
        "text": {"type": "string"},
    }
    if "scroll" in ADDED[version]:
        properties["scroll_direction"] = {"enum": ["up", "down", "left", "right"]}
        properties["scroll_amount"] = {"type": "integer", "minimum": 0, "maximum": 100}
        properties["duration"] = {"type": "number", "minimum": 0, "maximum": 100}
    if "zoom" in ADDED[version]:
        properties["region"] = {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}
    return properties


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": [*required]}


def _function(name: str, description: str, parameters: Schema) -> Schema:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
