"""Steps: a screenshot keeps its number, whatever else leaves the messages."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command
from pydantic import PrivateAttr

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera, ScreenWindow, wrap
from kamera_agent.agent.screens import mark_of
from kamera_agent.turns.blocks import find_images

Block = Callable[[int], dict[str, str]]


class Scripted(BaseChatModel):
    """Gives the replies of a script; remembers what it was shown."""

    script: list[list[dict[str, Any]]]
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        calls = self.script[len(self._seen)] if len(self._seen) < len(self.script) else []
        self._seen.append(messages)
        given = [call | {"id": f"{len(self._seen)}.{number}"} for number, call in enumerate(calls)]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("" if calls else "done", tool_calls=given))])


@pytest.fixture
def screenshot(image_block: Block) -> Any:
    @tool
    def screenshot(page: int) -> list[dict[str, Any]]:
        """The screen of a page."""
        return [{"type": "text", "text": f"page {page}"}, image_block(page)]

    return screenshot


@pytest.fixture
def step(image_block: Block) -> Callable[[int], list[AnyMessage]]:
    """The messages of a step that shows a page."""

    def step(page: int) -> list[AnyMessage]:
        content: list[Any] = [{"type": "text", "text": f"page {page}"}, image_block(page)]
        return [
            AIMessage("", tool_calls=[shot(page) | {"id": f"{page}"}]),
            ToolMessage(content, tool_call_id=f"{page}"),
        ]

    return step


def shot(page: int) -> dict[str, Any]:
    return {"name": "screenshot", "args": {"page": page}}


def look(*steps: int) -> dict[str, Any]:
    return {"name": "look_back", "args": {"steps": [*steps]}}


def looked_at(*steps: int) -> list[AnyMessage]:
    return [
        AIMessage("", tool_calls=[look(*steps) | {"id": "look"}]),
        ToolMessage("Shown.", tool_call_id="look", name="look_back", artifact=[*steps]),
    ]


def pages(messages: Sequence[BaseMessage]) -> dict[int, str]:
    """What is there of every page: "pixels", or the text in their place."""
    described = {}
    for message in messages:
        first = message.text.split("\n")[0] if isinstance(message.content, list) else ""
        if first.startswith("page "):
            stub = next((b["text"] for b in message.content[1:] if b["type"] == "text"), "pixels")  # type: ignore[index]
            described[int(message.content[0]["text"].split()[1])] = stub  # type: ignore[index]
    return described


def stub(step: int) -> str:
    return f"step {step}"


def window_of(folder: Path, **options: Any) -> ScreenWindow:
    return ScreenWindow(stub="step {step}", folder=folder, **({"keep_last": 1} | options))


def test_a_trimmed_list_keeps_its_steps(tmp_path: Path, step: Callable[[int], list[AnyMessage]]) -> None:
    """Plain lists: the same messages, copies of them, and messages that are built anew."""
    history = [HumanMessage("Go."), *(message for page in range(1, 6) for message in step(page))]
    window = window_of(tmp_path, pinned={3})
    assert pages(window.edit(history)) == {1: stub(1), 2: stub(2), 3: "pixels", 4: stub(4), 5: "pixels"}
    rebuilt = [HumanMessage("Go."), *step(3), *step(4), *step(5)]
    for left in (history[:1] + history[5:], copy.deepcopy(history[:1] + history[5:]), rebuilt):
        assert pages(window.edit(left)) == {3: "pixels", 4: stub(4), 5: "pixels"}
        assert pages(window.edit([*left, *looked_at(2, 4)])) == {3: "pixels", 4: "pixels", 5: "pixels"}
    assert pages(window.edit([*rebuilt[:1], *step(6), *step(7)])) == {6: stub(1), 7: "pixels"}  # nothing is known
    assert pages(window.edit([*rebuilt, *step(8), *step(9)])) == {
        3: "pixels",
        4: stub(4),
        5: stub(5),
        8: stub(6),
        9: "pixels",
    }


def test_equal_screens_keep_apart(tmp_path: Path, step: Callable[[int], list[AnyMessage]]) -> None:
    """The home page again and again, with nothing that tells the messages apart."""

    def history(*numbers: int) -> list[AnyMessage]:
        return [message for page in numbers for message in step(page)]

    window = window_of(tmp_path, keep_last=0)

    def stubs(*numbers: int) -> list[str]:
        return [message.content[1]["text"] for message in window.edit(history(*numbers)) if message.content]  # type: ignore[index]

    assert stubs(1, 2, 1) == [stub(1), stub(2), stub(3)]
    assert stubs(1, 2, 1, 1) == [stub(1), stub(2), stub(3), stub(4)]
    assert stubs(2, 1, 1) == [stub(2), stub(3), stub(4)]
    assert stubs(1, 1, 3) == [stub(3), stub(4), stub(5)]
    assert stubs(1, 2) == [stub(1), stub(2)]
    assert stubs(1, 2, 1) == [stub(1), stub(2), stub(3)]
    assert stubs(3) == [stub(5)]


def test_threads_have_numbers_of_their_own(tmp_path: Path, step: Callable[[int], list[AnyMessage]]) -> None:
    window = window_of(tmp_path, keep_last=0)
    assert pages(window.edit([*step(1), *step(2)])) == {1: stub(1), 2: stub(2)}
    assert pages(window.edit([*step(3), *step(4)])) == {3: stub(1), 4: stub(2)}
    for thread in ("a", "b"):
        assert pages(window.edit([*step(1), *step(5)], thread=thread)) == {1: stub(1), 5: stub(2)}
    assert pages(window.edit([*step(6)], thread="a")) == {6: stub(3)}


class Trim(AgentMiddleware):
    """Before a call of the model, leaves only the newest messages in the state, as a summariser does."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self._keep = keep

    def before_model(self, state: Any, runtime: Any) -> Any:
        if len(state["messages"]) <= self._keep + 1:
            return None
        return {
            "messages": [RemoveMessage(REMOVE_ALL_MESSAGES), HumanMessage("So far."), *state["messages"][-self._keep :]]
        }


@pytest.mark.parametrize("trims_first", [True, False])
def test_steps_outlive_a_summariser(trims_first: bool, tmp_path: Path, screenshot: Any) -> None:
    """Of the newest two messages; once the screenshots of the state are gone altogether; over a new process."""
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "one"}}
    script = [[shot(1)], [shot(2)], [shot(3)], [look(2)], [look(), look()], [], [shot(4)]]
    model = Scripted(script=script)

    def agent() -> Any:
        middleware = [Trim(2), window_of(tmp_path)] if trims_first else [window_of(tmp_path), Trim(2)]
        return create_agent(model, [screenshot], middleware=middleware, checkpointer=saver)

    agent().invoke({"messages": [HumanMessage("Go.")]}, config)
    agent().invoke({"messages": [HumanMessage("Go on.")]}, config)
    assert [pages(seen) for seen in model._seen] == [
        {},
        {1: "pixels"},
        {2: "pixels"},
        {3: "pixels"},
        {},
        {},
        {},
        {4: "pixels"},
    ]
    assert "There is no screenshot of step 2. There are:\nstep 3: page 3" in model._seen[4][-1].text
    state = agent().get_state(config).values
    assert state["kamera_steps"] == 4
    assert [mark_of(b)["step"] for m in state["messages"] for b in find_images(m.content)] == [4]


def test_tools_that_run_side_by_side(tmp_path: Path, screenshot: Any) -> None:
    """In the order of their calls, not in that of their answers; a list of messages and a dict among them."""
    model = Scripted(script=[[shot(1), shot(2), shot(3)], [look(2)]])
    agent = create_agent(model, [screenshot], middleware=[window_of(tmp_path)])
    agent.invoke({"messages": [HumanMessage("Go.")]})
    assert pages(model._seen[1]) == {1: stub(1), 2: stub(2), 3: "pixels"}
    assert pages(model._seen[2]) == {1: stub(1), 2: "pixels", 3: "pixels"}


def test_tools_that_return_lists_and_dicts(tmp_path: Path, image_block: Block) -> None:
    @tool
    def two(runtime: ToolRuntime) -> Any:
        """Two screens."""
        content = [{"type": "text", "text": "page 2"}, image_block(2)]
        message = {"role": "user", "content": [{"type": "text", "text": "page 1"}, image_block(1)]}
        return [
            Command(update={"messages": [message, ("user", "and")]}),
            ToolMessage(content, tool_call_id=runtime.tool_call_id),
        ]

    model = Scripted(script=[[{"name": "two", "args": {}}]])
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "one"}}
    create_agent(model, [two], middleware=[window_of(tmp_path)], checkpointer=saver).invoke(
        {"messages": [HumanMessage("Go.")]}, config
    )
    assert sorted(pages(model._seen[1]).values()) == ["pixels", stub(1)]
    for saved in saver.list(config):
        assert b"base64" not in saver.serde.dumps_typed(saved.checkpoint)[1]


def test_screens_of_a_sub_agent_get_other_numbers(tmp_path: Path, screenshot: Any) -> None:
    """Its messages, stowed and numbered from 1, come into a state that has a step 1."""
    window = window_of(tmp_path, keep_last=0)
    inner = create_agent(Scripted(script=[[shot(7)]]), [screenshot], middleware=[window])
    theirs = inner.invoke({"messages": [HumanMessage("Go.")]})["messages"]
    model = Scripted(script=[[shot(1)], []])
    outer = create_agent(model, [screenshot], middleware=[window], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "one"}}
    outer.invoke({"messages": [HumanMessage("Go.")]}, config)
    outer.invoke({"messages": [*theirs, HumanMessage("And?")]}, config)
    assert pages(model._seen[-1]) == {1: stub(1), 7: stub(2)}


def test_under_wrap_the_thread_of_the_run_counts(
    tmp_path: Path, kamera: Kamera, screenshot: Any, image_block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state holds pixels. One node trims what it shows; look_back in another node knows the same steps."""
    seen: list[list[BaseMessage]] = []
    script = [[shot(1)], [shot(2)], [look(1)], [], [shot(1)], []]

    def scripted(self: ChatKamera, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        calls = [call | {"id": f"{len(seen)}"} for call in script[len(seen)]]
        seen.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=calls))])

    monkeypatch.setattr(ChatKamera, "_generate", scripted)
    inner = create_agent(Scripted(script=[]), [screenshot], checkpointer=InMemorySaver())
    agent = wrap(inner, kamera, window_of(tmp_path))
    agent.invoke({"messages": [HumanMessage("Go.")]}, {"configurable": {"thread_id": "one"}})
    assert pages(seen[3]) == {1: "pixels", 2: "pixels"}
    agent.invoke({"messages": [HumanMessage("Go.")]}, {"configurable": {"thread_id": "two"}})
    assert pages(seen[5]) == {1: "pixels"}
    assert set(agent.nodes) >= {"model", "tools"}
    state = agent.get_state({"configurable": {"thread_id": "two"}}).values["messages"]
    messages = [*state, *([HumanMessage([{"type": "text", "text": "page 9"}, image_block(9)])])]
    assert pages(window_of(tmp_path).edit(messages)) == {1: stub(1), 9: "pixels"}
