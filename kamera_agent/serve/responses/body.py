"""The requests of OpenAI's Responses, as far as they are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from kamera_agent.serve.body import Block, Body


class TextConfig(BaseModel):
    """format: text, json_object, or json_schema with the schema beside its name."""

    format: Block | None = None


class ResponsesRequest(Body):
    """The body of POST /v1/responses. input: a text of the user, or items in order."""

    # The reply would come later, go on from a state or begin with a prompt that is not here, or have another form.
    FORMING: ClassVar[Mapping[str, Any]] = {
        "background": False,
        "conversation": None,
        "prompt": None,
        "top_logprobs": 0,
    }

    input: str | list[Block]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[Block] | None = None
    tool_choice: str | Block | None = None
    text: TextConfig | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    user: str | None = None

    @property
    def thread(self) -> str | None:
        return self.prompt_cache_key or self.user
