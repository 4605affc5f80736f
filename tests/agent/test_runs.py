"""create_agent over ChatKamera, ScreenWindow and a checkpointer: every way in, interrupts, failures and restarts."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import Field

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera, ScreenWindow

Block = Callable[[int], dict[str, str]]
QUESTION = "Where is emil?"


class Acting(ChatKamera):
    """Makes the calls of a script, one after each question; what it says then is the model's own."""

    script: list[dict[str, Any]] = Field(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        step = sum(isinstance(message, HumanMessage) for message in messages) - 1
        if isinstance(messages[-1], ToolMessage) or step >= len(self.script):
            return super()._generate(messages, *rest, **options)
        call = self.script[step] | {"id": f"call{step}"}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("", tool_calls=[call]))])


def asked(image_block: Block, page: int) -> dict[str, Any]:
    return {"messages": [HumanMessage([image_block(page), {"type": "text", "text": QUESTION}])]}


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def said_by_hand(kamera: Kamera, folder: Path, histories: Sequence[Sequence[AnyMessage]], name: str) -> list[str]:
    """What ChatKamera says to messages that a ScreenWindow has edited, called in turn without any agent."""
    window = ScreenWindow(keep_last=1, folder=folder)
    model = ChatKamera(kamera=kamera, max_tokens=4).bind_tools(window.tools)
    return [model.invoke(window.edit(messages), conversation=name).text for messages in histories]


async def _invoke(agent: Any, given: Any, config: Any) -> AnyMessage:
    return agent.invoke(given, config)["messages"][-1]


async def _ainvoke(agent: Any, given: Any, config: Any) -> AnyMessage:
    return (await agent.ainvoke(given, config))["messages"][-1]


async def _stream(agent: Any, given: Any, config: Any) -> AnyMessage:
    return [*agent.stream(given, config, stream_mode="values")][-1]["messages"][-1]


async def _astream(agent: Any, given: Any, config: Any) -> AnyMessage:
    return [state async for state in agent.astream(given, config, stream_mode="values")][-1]["messages"][-1]


@pytest.mark.parametrize("way", [_invoke, _ainvoke, _stream, _astream], ids=lambda way: way.__name__[1:])
async def test_every_way_in_says_what_the_model_says(
    way: Any, kamera: Kamera, image_block: Block, tmp_path: Path
) -> None:
    """Three turns, one screenshot in sight."""
    window = ScreenWindow(keep_last=1, folder=tmp_path)
    agent = create_agent(ChatKamera(kamera=kamera, max_tokens=4), [], middleware=[window], checkpointer=InMemorySaver())
    said, history, histories = [], [], []
    for page in (1, 2, 3):
        given = asked(image_block, page)
        reply = await way(agent, given, thread(way.__name__))
        histories.append([*history, *given["messages"]])
        history += [*given["messages"], reply]
        said.append(reply.text)
    assert said == said_by_hand(kamera, tmp_path, histories, f"by hand {way.__name__}")


def test_an_interrupt_and_what_comes_after_it(kamera: Kamera, image_block: Block, tmp_path: Path) -> None:
    """A tool asks the user for the next screenshot; the answer is that of a tool that had it at once."""

    @tool
    def ask_user() -> list[Any]:
        """Ask the user for the screen."""
        return [image_block(interrupt("Which page?"))]

    @tool
    def take() -> list[Any]:
        """Take the screen."""
        return [image_block(2)]

    replies = []
    for name in ("ask_user", "take"):
        agent = create_agent(
            Acting(kamera=kamera, max_tokens=4, script=[{"name": name, "args": {}}]),
            [ask_user, take],
            middleware=[ScreenWindow(keep_last=1, folder=tmp_path)],
            checkpointer=InMemorySaver(),
        )
        state = agent.invoke(asked(image_block, 1), thread(name))
        if name == "ask_user":
            assert [told.value for told in state["__interrupt__"]] == ["Which page?"]
            state = agent.invoke(Command(resume=2), thread(name))
        again = agent.invoke({"messages": [HumanMessage(QUESTION)]}, thread(name))
        replies.append([state["messages"][-1].text, again["messages"][-1].text])
    assert replies[0] == replies[1]


def test_a_tool_that_raises_leaves_the_conversation_usable(kamera: Kamera, image_block: Block, tmp_path: Path) -> None:
    """The run fails in the middle of its second turn; the next one in the thread answers as one that never failed."""

    @tool
    def click() -> str:
        """Click."""
        if failing:
            raise RuntimeError("the browser is gone")
        return "clicked"

    replies = []
    for failing in (True, False):
        agent = create_agent(
            Acting(kamera=kamera, max_tokens=4, script=[{"name": "click", "args": {}}]),
            [click],
            middleware=[ScreenWindow(keep_last=1, folder=tmp_path)],
            checkpointer=InMemorySaver(),
        )
        config = thread(f"failing {failing}")
        if failing:
            with pytest.raises(RuntimeError, match="the browser is gone"):
                agent.invoke(asked(image_block, 1), config)
            failing = False
            # Nobody answered the call; LangGraph takes the run up where it failed.
            state = agent.invoke(None, config)
        else:
            state = agent.invoke(asked(image_block, 1), config)
        again = agent.invoke(asked(image_block, 2), config)
        replies.append([state["messages"][-1].text, again["messages"][-1].text])
    assert replies[0] == replies[1]


@pytest.mark.timeout(240)
def test_a_process_ends_between_turns(tmp_path: Path, png: Callable[[int], bytes], image_block: Block) -> None:
    """The second process recalls what the first one saw, from disk, and says what one process would have said."""
    for page in (1, 2):
        (tmp_path / f"{page}.png").write_bytes(png(page))
    turns = []
    for page in (1, 2):
        command = [sys.executable, str(Path(__file__).with_name("turn.py")), str(tmp_path), f"{tmp_path}/{page}.png"]
        done = subprocess.run([*command, QUESTION], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        turns.append(json.loads(done.stdout.splitlines()[-1]))
    assert (turns[0]["recalled"], turns[1]["recalled"] > 40) == (0, True)
    first = asked(image_block, 1)["messages"]
    second = [*first, AIMessage(turns[0]["said"]), *asked(image_block, 2)["messages"]]
    with Kamera.pocket(rank=50) as kamera:
        window = ScreenWindow(keep_last=2, folder=tmp_path / "others")
        model = ChatKamera(kamera=kamera, max_tokens=4).bind_tools(window.tools)
        said = [model.invoke(window.edit(messages), conversation="one").text for messages in (first, second)]
    assert [turn["said"] for turn in turns] == said
