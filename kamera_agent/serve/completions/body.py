"""The requests of OpenAI's Chat Completions, as far as they are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from kamera_agent.serve.body import Block, Body
from kamera_agent.turns.habits import SERVED


class Function(BaseModel):
    """A function that was called. arguments: JSON, as a text; some clients send the object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class Call(BaseModel):
    """A call of a tool. id: that of this server, or whatever the client has made of it."""

    id: Any = None
    function: Function


class ChatMessage(BaseModel):
    """A message. content: a text, or its parts in order."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[str | Block] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None


class StreamOptions(BaseModel):
    """include_usage: whether the usage comes as the last chunk."""

    include_usage: bool | None = None


class ChatRequest(Body):
    """The body of POST /v1/chat/completions."""

    # All others that are not served, such as penalties, are ignored.
    FORMING: ClassVar[Mapping[str, Any]] = {
        name: SERVED[name] for name in ("best_of", "echo", "logprobs", "modalities", "n")
    }

    messages: list[ChatMessage]
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[Block] | None = None
    tool_choice: str | Block | None = None
    response_format: Block | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    @property
    def thread(self) -> str | None:
        return self.prompt_cache_key or self.user

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
