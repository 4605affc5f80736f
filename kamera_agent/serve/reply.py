"""Replies as OpenAI's Chat Completions write them, whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from time import time
from typing import Any
from uuid import uuid4

from kamera_agent.serve.said import CallForm
from kamera_agent.turns.tool_calls import Piece, new_call_id
from kamera_agent.window.reply import Reply

Json = dict[str, Any]


# The delta of the first chunk.
OPENING: Json = {"role": "assistant", "content": ""}


@dataclass(slots=True)
class Draft:
    """A reply as its pieces come. reply: set once it is complete."""

    reply: Reply = field(init=False)
    texts: list[str] = field(default_factory=list)
    calls: list[Json] = field(default_factory=list)

    def add(self, piece: Piece) -> Json:
        """Add a piece; returns it as the delta of a chunk."""
        if isinstance(piece, str):
            self.texts.append(piece)
            return {"content": piece}
        head: Json = {}
        if piece.index == len(self.calls):
            head = {"id": new_call_id(), "type": "function"}
            self.calls.append({**head, "function": {"name": "", "arguments": ""}})
        function = self.calls[piece.index]["function"]
        function["name"] += piece.name or ""
        function["arguments"] += piece.arguments
        named = {"name": piece.name} if piece.name else {}
        return {"tool_calls": [{"index": piece.index, **head, "function": {**named, "arguments": piece.arguments}}]}

    @property
    def text(self) -> str:
        """The content."""
        return "".join(self.texts)

    @property
    def forms(self) -> list[CallForm]:
        """The calls, as a client sends them back."""
        return [CallForm(**call["function"]) for call in self.calls]

    @property
    def finish_reason(self) -> str:
        """Why the reply ended, in OpenAI's words."""
        return "tool_calls" if self.calls and self.reply.finish_reason == "stop" else self.reply.finish_reason


class Form:
    """The form of one completion. model: its name. has_usage: whether the last chunk of a stream has the usage."""

    def __init__(self, model: str, *, has_usage: bool = False) -> None:
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time()), "model": model}
        self._has_usage = has_usage

    def whole(self, draft: Draft) -> Json:
        """The completion."""
        content = None if draft.calls and not draft.text else draft.text
        calls = {"tool_calls": draft.calls} if draft.calls else {}
        message = {"role": "assistant", "content": content, "refusal": None, **calls}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": draft.finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], **cost_of(draft.reply)}

    def chunk(self, delta: Json, finish_reason: str | None = None) -> Json:
        """A chunk of the message."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._chunk([choice], {"usage": None} if self._has_usage else {})

    def ending(self, draft: Draft) -> Iterator[Json]:
        """The last chunks: why the reply ended, and its usage."""
        yield self.chunk({}, draft.finish_reason)
        if self._has_usage:
            yield self._chunk([], cost_of(draft.reply))

    def _chunk(self, choices: list[Json], usage: Json) -> Json:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **usage}


def cost_of(reply: Reply) -> Json:
    """The usage of a reply, and what OpenAI has no place for: the origins of its tokens, and the timings.

    Tokens that were computed again, to refresh what was kept, moved or recalled, do not count as cached.
    """
    num_tokens, num_generated = reply.plan.num_tokens(), reply.usage.tokens_generated
    return {
        "usage": {
            "prompt_tokens": num_tokens,
            "completion_tokens": num_generated,
            "total_tokens": num_tokens + num_generated,
            "prompt_tokens_details": {"cached_tokens": num_tokens - reply.plan.num_computed},
        },
        "kamera": {
            "origins": reply.usage.origins,
            "refreshed": reply.usage.tokens_refreshed,
            "exact": reply.plan.is_exact,
            "timings": asdict(reply.timings),
        },
    }
