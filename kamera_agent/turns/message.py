"""The messages of a conversation, free of any chat protocol. Front ends translate theirs into these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kamera_agent.errors import InputError

UNREADABLE = "[An image could not be read: {}]"
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool: the tool's name, and its arguments as JSON values."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenCall:
    """A part of a reply that begins like a call but cannot be read as one.

    name: of the tool, where it can be read. error: the reason. text: the arguments as far as they go, with an end that
    no client mistakes for a call; where they cannot be found, the whole part, markers included.
    """

    name: str | None
    text: str
    error: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    role: "system", "user", "assistant", "tool", or another role that the chat template knows.
    parts: texts and encoded images, in order.
    calls: the tool calls of an assistant message.
    call_id: for a tool message, the id of the call that it answers.
    verbatim: the text that the model generated for an assistant message, where parts and calls do not spell it out.
        It is used while it still yields the same text and calls, so an edited message is not mistaken for the original.
    """

    role: str
    parts: tuple[str | bytes, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None
    verbatim: str | None = None

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))


def unreadable(error: InputError) -> str:
    """A text in the place of an image that is damaged or none. So a thread goes on that holds one."""
    return UNREADABLE.format(str(error)[:MAX_REASON])
