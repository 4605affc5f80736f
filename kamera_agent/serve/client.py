"""Who asks, in which conversation, and for what KV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kamera_agent.config import Demand
from kamera_agent.serve.digest import digest_of
from kamera_agent.turns.message import Message

# Characters of the name of a conversation that is kept as it is.
MAX_NAME = 128


class Client(NamedTuple):
    """namespace: of its key; None without keys. thread: the conversation that it names; None where it names none.

    demand: what KV its answer may use; None leaves it to the settings.
    """

    namespace: str | None
    thread: str | None
    demand: Demand | None = None


class Place(NamedTuple):
    """A conversation of the clients of one namespace."""

    namespace: str | None
    conversation: str


def place_of(client: Client, messages: Sequence[Message]) -> Place:
    """The conversation that a client names, or that its messages show.

    They show it by the first texts of the system and of the user, which stay when screenshots are dropped.
    """
    if client.thread:
        return Place(client.namespace, _bounded(f"thread {client.thread}"))
    digest = digest_of(*(_first_text(role, messages) for role in ("system", "user")))
    return Place(client.namespace, f"content {digest[:16].hex()}")


def _bounded(name: str) -> str:
    """A name that is not longer than it may be: that of a conversation is kept as long as what is known of it."""
    return name if len(name) <= MAX_NAME else f"digest {digest_of(name).hex()}"


def _first_text(role: str, messages: Sequence[Message]) -> str:
    parts = (part for message in messages if message.role == role for part in message.parts)
    return next((part for part in parts if isinstance(part, str)), "")
