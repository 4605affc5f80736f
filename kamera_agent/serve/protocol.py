"""The requests of OpenAI's Chat Completions, as far as they are read here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Block = dict[str, Any]


class Function(BaseModel):
    """A function that was called. arguments: JSON, as a text; some clients send the object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class Call(BaseModel):
    """A call of a tool."""

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


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. Any null means the default; other fields are in model_extra."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    messages: list[ChatMessage]
    stream: bool | None = None
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
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
