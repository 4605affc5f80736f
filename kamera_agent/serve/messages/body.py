"""The requests of Anthropic's Messages, as far as they are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from kamera_agent.serve.body import Block, Body


class GivenMessage(BaseModel):
    """A message. content: a text, or its blocks in order; among those of the user may be results of tools."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Metadata(BaseModel):
    """user_id: names a conversation here."""

    user_id: str | None = None


class OutputConfig(BaseModel):
    """format: a JSON schema of the reply, in Anthropic's envelope."""

    format: Block | None = None


class MessagesRequest(Body):
    """The body of POST /v1/messages, and of /v1/messages/count_tokens."""

    # They have a model call tools that are not here, or go on with a state that is not here.
    FORMING: ClassVar[Mapping[str, Any]] = {"mcp_servers": [], "container": None}

    messages: list[GivenMessage]
    system: str | list[Block] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Block] | None = None
    tool_choice: Block | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    output_format: Block | None = None

    @property
    def thread(self) -> str | None:
        return self.metadata.user_id if self.metadata else None
