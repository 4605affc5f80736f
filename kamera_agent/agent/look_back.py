"""look_back, the tool that shows earlier screenshots again, and a ToolNode that runs it beside tools of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel

from kamera_agent.agent.screens import LOOK_BACK, Stowage, list_screens
from kamera_agent.agent.steps import Numberings

MESSAGES = "messages"


def look_back_tool(stowage: Stowage, numberings: Numberings) -> BaseTool:
    """The tool. The artifact of its message lists the steps that it shows."""

    @tool(LOOK_BACK, response_format="content_and_artifact")
    def look_back(runtime: ToolRuntime[Any, Any], steps: list[int] | None = None) -> tuple[str, list[int]]:
        """Look at earlier screenshots again. Without steps: list what there is."""
        state = runtime.state
        messages = state if isinstance(state, list) else _fields(state)[_messages_key(state) or MESSAGES]
        screens = {screen.step: screen for screen in numberings.number(list_screens([*map(stowage.stow, messages)]))}
        listing = "\n".join(f"step {screen.step}: {screen.caption or '(no text)'}" for screen in screens.values())
        if not steps:
            return listing or "There is no screenshot yet.", []
        if unknown := [step for step in steps if step not in screens]:
            return f"There is no screenshot of step {', '.join(map(str, unknown))}. There are:\n{listing}", []
        if gone := [step for step in steps if not stowage.has(screens[step])]:
            return f"There are no pixels of step {', '.join(map(str, gone))} any more; other steps can be shown.", []
        return f"Shown again, each in its place: step {', '.join(map(str, steps))}.", steps

    return look_back


class WithLookBack(Runnable[Any, Any]):
    """A ToolNode whose look_back calls are answered by a second ToolNode.

    A ToolNode takes no further tools, and its way with errors and its wrappers are private, so it cannot be built again
    with one more. It stays what it is, and each of the two nodes gets its own calls out of the input.
    """

    def __init__(self, node: ToolNode, look_back: BaseTool) -> None:
        self.name = node.get_name()
        self._node, self._look_back = node, look_back

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        work = _read(input)
        own = [call for call in work.calls if call["name"] == LOOK_BACK]
        if not own:
            return self._node.invoke(input, config, **kwargs)
        others = [call for call in work.calls if call not in own]
        output = self._node.invoke(work.select(others), config, **kwargs) if others else None
        return _merge(output, self._second(work).invoke(work.select(own), config, **kwargs), work.calls)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        work = _read(input)
        own = [call for call in work.calls if call["name"] == LOOK_BACK]
        if not own:
            return await self._node.ainvoke(input, config, **kwargs)
        others = [call for call in work.calls if call not in own]
        output = await self._node.ainvoke(work.select(others), config, **kwargs) if others else None
        return _merge(output, await self._second(work).ainvoke(work.select(own), config, **kwargs), work.calls)

    def _second(self, work: _Work) -> ToolNode:
        return ToolNode([self._look_back], name=self.get_name(), messages_key=work.key)


class _Work(NamedTuple):
    """An input of a ToolNode: its calls, the same input with some of them, and the key of the messages in the state."""

    calls: Sequence[Mapping[str, Any]]
    select: Callable[[Sequence[Mapping[str, Any]]], Any]
    key: str


def _read(input: Any) -> _Work:
    """Read an input in any form that ToolNode takes. An input without look_back calls may be read as one without calls.

    The forms are a list of tool calls and one tool call with its state, both from a Send, a list of messages, and a
    state.
    """
    match input:
        case [*_, {"type": "tool_call"}]:
            # The state is not in the input: both nodes read it from the graph. Its key is that of create_agent.
            return _Work(input, list, MESSAGES)
        case {"__type": "tool_call_with_context", "tool_call": call, "state": state}:
            key = None if isinstance(state, list) else _messages_key(state)
            return _Work([call], lambda calls: input, key or MESSAGES)
        case list():
            return _Work(_calls(input), lambda calls: _with_calls(input, calls), MESSAGES)
    key = _messages_key(input)
    if key is None:
        return _Work([], lambda calls: input, MESSAGES)
    messages = _fields(input)[key]
    return _Work(_calls(messages), lambda calls: _replace(input, key, _with_calls(messages, calls)), key)


def _messages_key(state: Any) -> str | None:
    """The key of the messages whose last reply calls look_back. ToolNode keeps its own key private."""
    return next(
        (
            key
            for key, messages in _fields(state).items()
            if isinstance(messages, list) and any(call["name"] == LOOK_BACK for call in _calls(messages))
        ),
        None,
    )


def _calls(messages: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    """The tool calls of the last reply."""
    return next((message.tool_calls for message in reversed(messages) if isinstance(message, AIMessage)), [])


def _with_calls(messages: Sequence[BaseMessage], calls: Sequence[Mapping[str, Any]]) -> list[BaseMessage]:
    """The messages, with these calls in the last reply."""
    index = max(index for index, message in enumerate(messages) if isinstance(message, AIMessage))
    reply = messages[index].model_copy(update={"tool_calls": [*calls]})
    return [*messages[:index], reply, *messages[index + 1 :]]


def _fields(state: Any) -> Mapping[str, Any]:
    if isinstance(state, Mapping):
        return state
    if dataclasses.is_dataclass(state):
        return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    attributes: Mapping[str, Any] = vars(state)
    return attributes


def _replace(state: Any, key: str, messages: list[BaseMessage]) -> Any:
    if isinstance(state, Mapping):
        return {**state, key: messages}
    if isinstance(state, BaseModel):
        return state.model_copy(update={key: messages})
    return dataclasses.replace(state, **{key: messages})


def _merge(output: Any, own: Any, calls: Sequence[Mapping[str, Any]]) -> Any:
    """The outputs of both nodes as one. Messages come in the order of the calls: templates may tell them by that."""
    if output is None:
        return own
    places = {call["id"]: place for place, call in enumerate(calls)}

    def ordered(messages: Sequence[ToolMessage]) -> list[ToolMessage]:
        return sorted(messages, key=lambda message: places.get(message.tool_call_id, len(places)))

    if isinstance(output, dict):
        return {key: ordered([*output[key], *messages]) for key, messages in own.items()}
    if all(isinstance(message, ToolMessage) for message in output):
        return ordered([*output, *own])
    # Commands among them: a list of updates.
    return [*output, own]
