"""Replies as OpenAI's Chat Completions write them, whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from time import time
from uuid import uuid4

from kamera_agent.serve.form import Form, Json, cost_of, kamera_of
from kamera_agent.turns.tool_calls import Piece
from kamera_agent.window.reply import Reply


class CompletionForm(Form):
    """The form of one completion. model: its name. has_usage: whether the last chunk of a stream has the usage."""

    DONE = "[DONE]"

    def __init__(self, model: str, *, has_usage: bool = False) -> None:
        super().__init__()
        self._head = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time()), "model": model}
        self._has_usage = has_usage

    def opening(self) -> Iterator[Json]:
        yield self._delta({"role": "assistant", "content": ""})

    def add(self, piece: Piece) -> Iterator[Json]:
        if isinstance(piece, str):
            self.texts.append(piece)
            yield self._delta({"content": piece})
            return
        is_first = piece.index == len(self.calls)
        call = self.call_of(piece)
        head = {"id": call.id, "type": "function"} if is_first else {}
        named = {"name": piece.name} if piece.name else {}
        function = {**named, "arguments": piece.arguments}
        yield self._delta({"tool_calls": [{"index": piece.index, **head, "function": function}]})

    def ending(self) -> Iterator[Json]:
        """Why the reply ended, and its usage."""
        yield self._delta({}, self._finish_reason)
        if self._has_usage:
            yield self._chunk([], _cost(self.reply))

    def whole(self) -> Json:
        """The completion."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        content = None if calls and not self.text else self.text
        message = {"role": "assistant", "content": content, "refusal": None, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], **_cost(self.reply)}

    @property
    def _finish_reason(self) -> str:
        """Why the reply ended, in OpenAI's words."""
        return "tool_calls" if self.calls and self.reply.finish_reason == "stop" else self.reply.finish_reason

    def _delta(self, delta: Json, finish_reason: str | None = None) -> Json:
        """A chunk of the message."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._chunk([choice], {"usage": None} if self._has_usage else {})

    def _chunk(self, choices: list[Json], usage: Json) -> Json:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **usage}


def _cost(reply: Reply) -> Json:
    cost = cost_of(reply)
    return {
        "usage": {
            "prompt_tokens": cost.num_tokens,
            "completion_tokens": cost.num_generated,
            "total_tokens": cost.num_tokens + cost.num_generated,
            "prompt_tokens_details": {"cached_tokens": cost.num_cached},
        },
        "kamera": kamera_of(reply),
    }
