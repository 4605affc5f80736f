"""The items of a response, each with the events of its making."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal
from uuid import uuid4

from kamera_agent.serve.form import Call, Json
from kamera_agent.serve.responses.tools import COMPUTER
from kamera_agent.serve.sent import CallForm

Status = Literal["in_progress", "completed", "incomplete"]


class Item(ABC):
    """An item. index: its number in the response. status: of what it has."""

    def __init__(self, prefix: str, index: int) -> None:
        self.id, self.index = f"{prefix}_{uuid4().hex}", index
        self.status: Status = "in_progress"

    @property
    @abstractmethod
    def json(self) -> Json:
        """The item so far."""

    @abstractmethod
    def opening(self) -> Iterator[Json]:
        """The events of an item that begins."""

    @abstractmethod
    def add(self, text: str) -> Iterator[Json]:
        """Add a text, or a piece of the arguments."""

    @abstractmethod
    def ending(self) -> Iterator[Json]:
        """The events of an item whose status is known."""

    def _added(self) -> Json:
        return {"type": "response.output_item.added", "output_index": self.index, "item": self.json}

    def _done(self) -> Json:
        return {"type": "response.output_item.done", "output_index": self.index, "item": self.json}

    @property
    def _place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index}


class MessageItem(Item):
    """A message of one text."""

    def __init__(self, index: int) -> None:
        super().__init__("msg", index)
        self._text = ""

    @property
    def json(self) -> Json:
        content = [] if self.status == "in_progress" else [self._part]
        return {"type": "message", "id": self.id, "role": "assistant", "status": self.status, "content": content}

    def opening(self) -> Iterator[Json]:
        yield self._added()
        yield {"type": "response.content_part.added", **self._place, "part": self._part}

    def add(self, text: str) -> Iterator[Json]:
        self._text += text
        yield {"type": "response.output_text.delta", **self._place, "delta": text, "logprobs": []}

    def ending(self) -> Iterator[Json]:
        yield {"type": "response.output_text.done", **self._place, "text": self._text, "logprobs": []}
        yield {"type": "response.content_part.done", **self._place, "part": self._part}
        yield self._done()

    @property
    def _part(self) -> Json:
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    @property
    def _place(self) -> Json:
        return {**super()._place, "content_index": 0}


class FunctionItem(Item):
    """A call of a function."""

    def __init__(self, index: int, call: Call) -> None:
        super().__init__("fc", index)
        self._call = call

    @property
    def json(self) -> Json:
        call = {"call_id": self._call.id, "name": self._call.name, "arguments": self._call.arguments}
        return {"type": "function_call", "id": self.id, "status": self.status, **call}

    def opening(self) -> Iterator[Json]:
        # The first piece is in the call by now, and comes again.
        yield {**self._added(), "item": {**self.json, "arguments": ""}}

    def add(self, text: str) -> Iterator[Json]:
        yield {"type": "response.function_call_arguments.delta", **self._place, "delta": text}

    def ending(self) -> Iterator[Json]:
        arguments = {"name": self._call.name, "arguments": self._call.arguments}
        yield {"type": "response.function_call_arguments.done", **self._place, **arguments}
        yield self._done()


class ComputerItem(FunctionItem):
    """An action on a screen, which comes at once. is_list: whether the client expects a list of actions.

    Where its JSON is broken, it is a call of a function that the client does not have.
    """

    def __init__(self, index: int, call: Call, *, is_list: bool) -> None:
        super().__init__(index, call)
        self._is_list = is_list

    @property
    def json(self) -> Json:
        action = CallForm(COMPUTER, self._call.arguments).read()
        if action is None:
            return super().json
        acts = {"actions": [action]} if self._is_list else {"action": action}
        head = {"type": "computer_call", "id": self.id, "call_id": self._call.id, "status": self.status}
        return {**head, **acts, "pending_safety_checks": []}

    def opening(self) -> Iterator[Json]:
        yield from ()

    def add(self, text: str) -> Iterator[Json]:
        yield from ()

    def ending(self) -> Iterator[Json]:
        yield self._added()
        yield self._done()
