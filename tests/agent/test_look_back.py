"""look_back in a ToolNode of a graph that wrap() is put over: every form of input, beside tools of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, Send
from pydantic import BaseModel

from kamera_agent import Kamera
from kamera_agent.agent import ScreenWindow, wrap

Block = Callable[[int], dict[str, str]]
Messages = Annotated[list[AnyMessage], add_messages]


class DictState(TypedDict):
    messages: Messages
    mood: str


class ChatState(TypedDict):
    """Its messages have another name, and there are others beside them."""

    old: Messages
    chat: Messages
    mood: str


@dataclass(slots=True)
class DataclassState:
    messages: Messages = field(default_factory=list)
    mood: str = ""


class PydanticState(BaseModel):
    messages: Messages
    mood: str


@tool
def count(state: Annotated[Any, InjectedState]) -> str:
    """Count the messages of the state."""
    fields = state if isinstance(state, dict) else {name: getattr(state, name) for name in ("messages", "mood")}
    return f"{len(fields.get('chat') or fields['messages'])} {fields.get('mood')}"


def call(name: str, call_id: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": call_id, "type": "tool_call"}


CALLS = [call("count", "1"), call("look_back", "2", steps=[1]), call("count", "3"), call("look_back", "4", steps=[7])]
SEEN = "Shown again, each in its place: step 1."


def graph_of(state: Any, node: ToolNode | None = None, send: Callable[[Any], list[Send]] | None = None) -> Any:
    builder = StateGraph(state).add_node("tools", node or ToolNode([count]))
    if send:
        builder.add_node("start", lambda state: {}).add_edge(START, "start").add_conditional_edges("start", send)
    else:
        builder.add_edge(START, "tools")
    return builder.compile()


def history(image_block: Block, calls: list[dict[str, Any]]) -> list[AnyMessage]:
    return [HumanMessage([image_block(1)]), AIMessage("", tool_calls=calls)]


@pytest.fixture
def run(kamera: Kamera, tmp_path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs a wrapped graph, synchronously and asynchronously; returns the tool messages of both, which must agree."""

    def run(graph: Any, state: Any, key: str | None = "messages") -> list[tuple[Any, ...]]:
        ours = wrap(graph, kamera, ScreenWindow(folder=tmp_path))
        both = []
        for result in (ours.invoke(state), asyncio.run(ours.ainvoke(state))):
            messages = result if key is None else result[key]
            both.append([(m.tool_call_id, m.text, m.artifact) for m in messages if isinstance(m, ToolMessage)])
        assert both[0] == both[1]
        return both[0]

    return run


def expected(num_messages: int, mood: str | None = "calm") -> list[tuple[Any, ...]]:
    unknown = "There is no screenshot of step 7. There are:\nstep 1: (no text)"
    counted = f"{num_messages} {mood}"
    return [("1", counted, None), ("2", SEEN, [1]), ("3", counted, None), ("4", unknown, [])]


@pytest.mark.parametrize("state", [DictState, DataclassState, PydanticState], ids=lambda state: state.__name__)
def test_a_state(state: Any, run: Any, image_block: Block) -> None:
    given = {"messages": history(image_block, CALLS), "mood": "calm"}
    assert run(graph_of(state), given) == expected(2)


def test_a_state_whose_messages_have_another_name(run: Any, image_block: Block) -> None:
    given = {"old": [HumanMessage("Hi."), AIMessage("Hello.")], "chat": history(image_block, CALLS), "mood": "calm"}
    assert run(graph_of(ChatState, ToolNode([count], messages_key="chat")), given, "chat") == expected(2)


def test_a_list_of_messages(run: Any, image_block: Block) -> None:
    assert run(graph_of(Messages), history(image_block, CALLS), None) == expected(2, None)


def test_calls_that_are_sent_one_by_one(run: Any, image_block: Block) -> None:
    graph = graph_of(DictState, send=lambda state: [Send("tools", [each]) for each in state["messages"][-1].tool_calls])
    assert run(graph, {"messages": history(image_block, CALLS), "mood": "calm"}) == expected(2)


def test_calls_that_are_sent_together(run: Any, image_block: Block) -> None:
    graph = graph_of(DictState, send=lambda state: [Send("tools", state["messages"][-1].tool_calls)])
    assert run(graph, {"messages": history(image_block, CALLS), "mood": "calm"}) == expected(2)


def test_calls_that_are_sent_with_their_state(run: Any, image_block: Block) -> None:
    def send(state: Any) -> list[Send]:
        return [
            Send("tools", {"__type": "tool_call_with_context", "tool_call": each, "state": state})
            for each in state["messages"][-1].tool_calls
        ]

    given = {"messages": history(image_block, CALLS), "mood": "calm"}
    assert run(graph_of(DictState, send=send), given) == expected(2)


@pytest.mark.parametrize("picked", [[1], [0], []], ids=["look_back alone", "without look_back", "nothing"])
def test_some_calls(picked: list[int], run: Any, image_block: Block) -> None:
    given = {"messages": history(image_block, [CALLS[index] for index in picked]), "mood": "calm"}
    assert run(graph_of(DictState), given) == [expected(2)[index] for index in picked]


def test_a_command_beside_it(run: Any, image_block: Block) -> None:
    @tool
    def cheer_up(call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Cheer up."""
        return Command(update={"mood": "glad", "messages": [ToolMessage("cheered", tool_call_id=call_id)]})

    calls = [CALLS[1], call("cheer_up", "5")]
    given = {"messages": history(image_block, calls), "mood": "calm"}
    assert sorted(run(graph_of(DictState, ToolNode([cheer_up])), given)) == [("2", SEEN, [1]), ("5", "cheered", None)]


def test_the_tool_node_stays_what_it_is(run: Any, image_block: Block) -> None:
    """A subclass with a wrapper of its own, which sees its own calls and no others."""
    seen: list[tuple[str, bool]] = []

    class Mine(ToolNode):
        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(("invoke", True))
            return super().invoke(*args, **kwargs)

    def note(request: Any, handler: Any) -> Any:
        seen.append((request.tool_call["name"], request.tool is count))
        return handler(request)

    node = Mine([count], wrap_tool_call=note)
    given = {"messages": history(image_block, CALLS), "mood": "calm"}
    assert run(graph_of(DictState, node), given) == expected(2)
    assert seen == [("invoke", True), *[("count", True)] * 4]
    assert list(node.tools_by_name) == ["count"]


def test_a_look_back_of_its_own_goes_first(run: Any, image_block: Block) -> None:
    @tool
    def look_back(steps: list[int]) -> str:
        """Look back."""
        return f"mine {steps}"

    given = {"messages": history(image_block, CALLS[1:2]), "mood": "calm"}
    assert run(graph_of(DictState, ToolNode([look_back])), given) == [("2", "mine [1]", None)]
