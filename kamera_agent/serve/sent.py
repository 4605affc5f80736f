"""A message as a client sends it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from kamera_agent.turns.message import Message, ToolCall


class CallForm(NamedTuple):
    """A call as a client knows it. arguments: JSON. id: None where it has none."""

    name: str
    arguments: str
    id: str | None = None

    def read(self) -> dict[str, Any] | None:
        """The arguments; None where they are no JSON object."""
        try:
            arguments = json.loads(self.arguments, strict=False)
        except (ValueError, RecursionError):
            return None
        return arguments if isinstance(arguments, dict) else None


class Sent(NamedTuple):
    """A message as a client sends it. parts: texts and encoded images, in order. calls: of an assistant message."""

    role: str
    parts: tuple[str | bytes, ...] = ()
    calls: tuple[CallForm, ...] = ()
    call_id: str | None = None

    @property
    def message(self) -> Message:
        """The message for a transcript."""
        calls = (_read_call(form) for form in self.calls)
        return Message(self.role, self.parts, tuple(call for call in calls if call), self.call_id)

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))


def id_of(given: Any) -> str | None:
    """The id of a call; None for what is no text."""
    return given if isinstance(given, str) else None


def _read_call(form: CallForm) -> ToolCall | None:
    """A call; None for one that the model did not finish, which no template can show."""
    arguments = form.read()
    return ToolCall(form.name, arguments) if form.name and arguments is not None else None
