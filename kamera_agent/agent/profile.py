"""The profile of a model, by which LangChain's middleware chooses its limits."""

from __future__ import annotations

from typing import Any

from kamera_agent.errors import InputError
from kamera_agent.runtime.families.base import Family
from kamera_agent.turns.message import Message
from kamera_agent.turns.transcript import transcribe

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def profile_of(family: Family) -> dict[str, Any]:
    """The entries of LangChain's ModelProfile that are known of a loaded model.

    structured_output is not among them: an agent would then ask for its schema in every call, and no tool could be
    called.
    """
    return {
        "max_input_tokens": family.decoder.max_positions,
        "text_inputs": True,
        "text_outputs": True,
        "image_inputs": family.has_eyes,
        "image_tool_message": family.has_eyes,
        "image_url_inputs": False,
        "tool_calling": _takes_tools(family),
        "temperature": True,
    }


def _takes_tools(family: Family) -> bool:
    try:
        transcribe(family, [Message("user", ("?",))], [TOOL])
    except InputError:
        return False
    return True
