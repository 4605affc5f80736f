"""Replies as OpenAI's Responses write them, whole or as events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import time
from uuid import uuid4

from kamera_agent.serve.errors import Refused
from kamera_agent.serve.form import Call, Form, Json, cost_of, kamera_of
from kamera_agent.serve.responses.body import ResponsesRequest
from kamera_agent.serve.responses.items import ComputerItem, FunctionItem, Item, MessageItem, Status
from kamera_agent.serve.responses.tools import COMPUTER, computer_of
from kamera_agent.turns.tool_calls import Piece
from kamera_agent.window.reply import Reply


class ResponseForm(Form):
    """The form of one response. model: its name. body: of the request, which the response repeats in part."""

    def __init__(self, model: str, body: ResponsesRequest) -> None:
        super().__init__()
        self.id = f"resp_{uuid4().hex}"
        head = {"id": self.id, "object": "response", "created_at": int(time()), "model": model}
        self._head = {**head, **_repeated(body)}
        self._computer = computer_of(body.tools or ())
        self._items: list[Item] = []
        self._num_events = 0

    def opening(self) -> Iterator[Json]:
        response = self._response("in_progress")
        names = ("response.created", "response.in_progress")
        yield from self._numbered({"type": name, "response": response} for name in names)

    def add(self, piece: Piece) -> Iterator[Json]:
        yield from self._numbered(self._events(piece))

    def end(self, reply: Reply) -> Iterator[Json]:
        yield from super().end(reply)
        yield from self._numbered(self._close("incomplete" if reply.finish_reason == "length" else "completed"))

    def ending(self) -> Iterator[Json]:
        response = self.whole()
        yield from self._numbered([{"type": f"response.{response['status']}", "response": response}])

    def whole(self) -> Json:
        """The response."""
        is_cut = self.reply.finish_reason == "length"
        cost = cost_of(self.reply)
        return {
            **self._response("incomplete" if is_cut else "completed"),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": {
                "input_tokens": cost.num_tokens,
                "input_tokens_details": {"cached_tokens": cost.num_cached, "cache_write_tokens": cost.num_created},
                "output_tokens": cost.num_generated,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": cost.num_tokens + cost.num_generated,
            },
            "kamera": kamera_of(self.reply),
        }

    def failure(self, refused: Refused) -> Json:
        code = "server_error" if refused.status_code >= 500 else "invalid_prompt"
        failed = {**self._response("failed"), "error": {"code": code, "message": refused.detail}}
        [event] = self._numbered([{"type": "response.failed", "response": failed}])
        return event

    def _events(self, piece: Piece) -> Iterator[Json]:
        last = self._items[-1] if self._items else None
        if isinstance(piece, str):
            self.texts.append(piece)
            if not isinstance(last, MessageItem):
                yield from self._begin(MessageItem(len(self._items)))
            yield from self._items[-1].add(piece)
            return
        is_first = piece.index == len(self.calls)
        call = self.call_of(piece)
        if is_first:
            yield from self._begin(self._item_of(call))
        if piece.arguments:
            yield from self._items[-1].add(piece.arguments)

    def _item_of(self, call: Call) -> Item:
        if self._computer and call.name == COMPUTER:
            return ComputerItem(len(self._items), call, is_list=self._computer == COMPUTER)
        return FunctionItem(len(self._items), call)

    def _begin(self, item: Item) -> Iterator[Json]:
        yield from self._close("completed")
        self._items.append(item)
        yield from item.opening()

    def _close(self, status: Status) -> Iterator[Json]:
        """End the last item."""
        if self._items:
            self._items[-1].status = status
            yield from self._items[-1].ending()

    def _response(self, status: str) -> Json:
        output = [item.json for item in self._items]
        nothing = {"error": None, "incomplete_details": None, "usage": None}
        return {**self._head, **nothing, "status": status, "output": output}

    def _numbered(self, events: Iterable[Json]) -> Iterator[Json]:
        for event in events:
            yield {**event, "sequence_number": self._num_events}
            self._num_events += 1


def _repeated(body: ResponsesRequest) -> Json:
    """What a response repeats of its request, with the defaults."""
    return {
        "instructions": body.instructions,
        "previous_response_id": body.previous_response_id,
        "store": body.store is not False,
        "max_output_tokens": body.max_output_tokens,
        "temperature": body.temperature or 0.0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "tools": body.tools or [],
        "tool_choice": body.tool_choice or "auto",
        "parallel_tool_calls": True,
        "text": {"format": (body.text and body.text.format) or {"type": "text"}},
        "truncation": "disabled",
        "metadata": body.metadata or {},
    }
