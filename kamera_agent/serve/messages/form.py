"""Replies as Anthropic's Messages write them, whole or as events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

from kamera_agent.serve.errors import Refused, messages_error_of
from kamera_agent.serve.form import Call, Form, Json, cost_of, kamera_of
from kamera_agent.serve.sent import CallForm
from kamera_agent.turns.tool_calls import Piece
from kamera_agent.window.reply import Reply

NOTHING = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}


class MessageForm(Form):
    """The form of one message. model: its name.

    A call is sent once it is whole, because clients raise where the input of a block turns out to be no JSON. What
    begins like a call and is none becomes a text.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self._head = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model}
        self._content: list[Json] = []
        # The block of text that is being sent, and the call that is not whole yet, with its number in the reply.
        self._open: Json | None = None
        self._call: Call | None = None
        self._index = -1

    def opening(self) -> Iterator[Json]:
        yield {"type": "message_start", "message": self._message(None, NOTHING)}
        yield {"type": "ping"}

    def add(self, piece: Piece) -> Iterator[Json]:
        if isinstance(piece, str):
            yield from self._send_call()
            yield from self._send_text(piece)
            return
        if piece.index != self._index:
            yield from self._send_call()
            self._index, self._call = piece.index, Call(f"toolu_{uuid4().hex}")
        assert self._call is not None, "the pieces of a call come in a row"
        self._call.add(piece)

    def end(self, reply: Reply) -> Iterator[Json]:
        yield from self._send_call()
        yield from self._close_text()
        yield from super().end(reply)

    def ending(self) -> Iterator[Json]:
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": self._stop_reason, "stop_sequence": self.reply.stop_word},
            "usage": _usage(self.reply),
            "kamera": kamera_of(self.reply),
        }
        yield {"type": "message_stop"}

    def whole(self) -> Json:
        """The message."""
        message = self._message(self._stop_reason, _usage(self.reply), self.reply.stop_word)
        return {**message, "kamera": kamera_of(self.reply)}

    def failure(self, refused: Refused) -> Json:
        return messages_error_of(refused)

    @property
    def _stop_reason(self) -> str:
        if self.reply.finish_reason == "length":
            return "max_tokens"
        if self.calls:
            return "tool_use"
        return "stop_sequence" if self.reply.stop_word else "end_turn"

    def _message(self, stop_reason: str | None, usage: Json, stop_word: str | None = None) -> Json:
        ended = {"stop_reason": stop_reason, "stop_sequence": stop_word}
        return {**self._head, "content": [*self._content], **ended, "usage": usage}

    def _send_text(self, text: str) -> Iterator[Json]:
        if self._open is None:
            self._open = {"type": "text", "text": ""}
            yield {"type": "content_block_start", "index": len(self._content), "content_block": {**self._open}}
            self._content.append(self._open)
        self._open["text"] += text
        self.texts.append(text)
        delta = {"type": "text_delta", "text": text}
        yield {"type": "content_block_delta", "index": len(self._content) - 1, "delta": delta}

    def _close_text(self) -> Iterator[Json]:
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": len(self._content) - 1}

    def _send_call(self) -> Iterator[Json]:
        """The events of the call whose pieces have all come."""
        call, self._call = self._call, None
        if call is None:
            return
        arguments = CallForm(call.name, call.arguments).read()
        if arguments is None or not call.name:
            yield from self._send_text(call.arguments)
            return
        yield from self._close_text()
        index, block = len(self._content), {"type": "tool_use", "id": call.id, "name": call.name}
        yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
        self._content.append({**block, "input": arguments})
        self.calls.append(call)


def _usage(reply: Reply) -> Json:
    """The usage of a reply. The three counts of the input add up to the tokens of the prompt."""
    cost = cost_of(reply)
    return {
        "input_tokens": cost.num_tokens - cost.num_cached - cost.num_created,
        "cache_creation_input_tokens": cost.num_created,
        "cache_read_input_tokens": cost.num_cached,
        "output_tokens": cost.num_generated,
    }
