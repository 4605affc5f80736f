"""What an agent computes per turn when a framework edits its history, or lets others speak in its thread."""

import sqlite3
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from acting import Acting, computed, total
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ClearToolUsesEdit,
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from langgraph_supervisor import create_supervisor

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera

Block = Callable[[int], dict[str, str]]
SYSTEM = "You operate a browser. " * 20
QUESTION = "Where is anna now?"
PAGE = "The page has many words. " * 12


@tool
def read_page(number: int) -> str:
    """Read a page."""
    return f"{number}: {PAGE}"


def ask(agent: Any, text: str, thread: str, *blocks: Any, **place: Any) -> AnyMessage:
    content = [*blocks, {"type": "text", "text": text}]
    config = {"configurable": {"thread_id": thread, **place}}
    return agent.invoke({"messages": [HumanMessage(content)]}, config)["messages"][-1]


@pytest.fixture
def size(kamera: Kamera) -> Callable[[str], int]:
    """Tokens of a text, and of the markup of its turn and of the next reply."""
    return lambda text: len(kamera.family.tokens.encode(text)) + 20


def test_a_summariser_leaves_the_agent_its_window(kamera: Kamera, size: Callable[[str], int]) -> None:
    """It speaks in the same thread. When it has, the agent computes the summary as well."""
    chat = ChatKamera(kamera=kamera, max_tokens=3)
    summarise = SummarizationMiddleware(model=chat, trigger=("messages", 6), keep=("messages", 3))
    agent = create_agent(chat, [], system_prompt=SYSTEM, middleware=[summarise], checkpointer=InMemorySaver())
    first, *turns = [ask(agent, f"{QUESTION} {hour}", "summarised") for hour in range(7)]
    assert computed(first) == total(first)
    summary = size("Here is a summary of the conversation to date:")
    for hour, turn in enumerate(turns, start=1):
        assert computed(turn) < size(f"{QUESTION} {hour}") + (summary if hour > 2 else 0)


def test_cleared_tool_results_cost_their_stubs(kamera: Kamera, size: Callable[[str], int]) -> None:
    script = [{"name": "read_page", "args": {"number": number}} for number in range(5)]
    edit = ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=200, keep=1)])
    chat = Acting(kamera=kamera, max_tokens=3, script=script)
    agent = create_agent(chat, [read_page], middleware=[edit], checkpointer=InMemorySaver())
    turns = [ask(agent, f"Read {number}.", "cleared") for number in range(5)]
    new = size("Read 0.") + size(f"<tool_response>0: {PAGE}</tool_response>") + size(str(script[0]))
    for turn in turns[1:]:
        assert computed(turn) < new + size("[cleared]")


def test_an_approved_call_costs_what_is_new(kamera: Kamera, size: Callable[[str], int]) -> None:
    """Between the call and its approval, another thread speaks."""
    chat = Acting(kamera=kamera, max_tokens=3, script=[{"name": "read_page", "args": {"number": 1}}] * 2)
    agent = create_agent(
        chat,
        [read_page],
        system_prompt=SYSTEM,
        middleware=[HumanInTheLoopMiddleware(interrupt_on={"read_page": True})],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "approved"}}
    costs = []
    for number in range(2):
        state = agent.invoke({"messages": [HumanMessage(f"Read {number}.")]}, config)
        assert state["__interrupt__"]
        chat.invoke(QUESTION, conversation="another")
        state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config)
        costs.append(computed(state["messages"][-1]))
    new = size("Read 0.") + size(f"<tool_response>1: {PAGE}</tool_response>") + size(str(chat.script[0]))
    assert costs[0] > size(SYSTEM)
    assert costs[1] < new


def test_time_travel_keeps_both_branches(kamera: Kamera, size: Callable[[str], int]) -> None:
    chat = ChatKamera(kamera=kamera, max_tokens=3)
    agent = create_agent(chat, [], system_prompt=SYSTEM, checkpointer=InMemorySaver())
    for hour in range(4):
        ask(agent, f"{QUESTION} {hour}", "travels")
    config: Any = {"configurable": {"thread_id": "travels"}}
    ends = [state.config["configurable"] for state in agent.get_state_history(config) if not state.next]
    newest, earlier = ends[0], ends[2]
    for place, question in ((earlier, "And ben?"), (newest, "And carl?"), (earlier, "And dora?")):
        message = ask(agent, question, "travels", checkpoint_id=place["checkpoint_id"])
        assert computed(message) < size(question)


def test_a_restart_recalls_the_screens(tmp_path: Path, image_block: Block, png: Callable[[int], bytes]) -> None:
    """The state comes from SQLite, the screens from the store."""
    costs = []
    for page in (1, 2, 3):
        with (
            Kamera.pocket(store=tmp_path / "store", rank=50) as kamera,
            sqlite3.connect(tmp_path / "state.db", check_same_thread=False) as database,
        ):
            chat = ChatKamera(kamera=kamera, max_tokens=3)
            agent = create_agent(chat, [], checkpointer=SqliteSaver(database))
            costs.append(ask(agent, QUESTION, "restarted", image_block(page)).response_metadata["kamera"]["origins"])
            screens = [chat.count_image_tokens(png(number)) for number in range(1, page + 1)]
        assert costs[-1]["recalled"] == sum(screens[:-1])
        assert costs[-1]["computed"] < screens[-1] + 40 * page


@pytest.mark.filterwarnings("ignore::langgraph.warnings.LangGraphDeprecatedSinceV10")
def test_a_supervisor_and_its_worker_keep_their_windows(kamera: Kamera, size: Callable[[str], int]) -> None:
    """Both speak in one thread, with prompts and tools of their own, and each computes what is new to it."""
    chat = Acting(kamera=kamera, max_tokens=3, script=[{"name": "transfer_to_looker", "args": {}}] * 3)
    looker = create_agent(chat, [read_page], system_prompt=f"You look at pages. {PAGE}", name="looker")
    supervisor = create_supervisor([looker], model=chat, prompt=SYSTEM).compile(checkpointer=InMemorySaver())
    turns = []
    for hour in range(3):
        state = supervisor.invoke(
            {"messages": [HumanMessage(f"{QUESTION} {hour}")]}, {"configurable": {"thread_id": "supervised"}}
        )
        replies = [message for message in state["messages"] if "kamera" in message.response_metadata]
        turns.append(replies[-2:])
    assert all(computed(reply) > size(PAGE) for reply in turns[0])
    for before, after in pairwise(turns):
        # All that an agent saw in its turn before is kept.
        for old, new in zip(before, after, strict=True):
            assert computed(new) <= total(new) - total(old)


@pytest.mark.parametrize("thread", [None, "its own"])
def test_a_sub_agent_leaves_the_agent_its_window(kamera: Kamera, size: Callable[[str], int], thread: Any) -> None:
    """A tool runs it, in the thread of the agent or in one of its own."""
    chat = Acting(kamera=kamera, max_tokens=3, script=[{"name": "look", "args": {}}] * 3)
    inner = create_agent(chat, [], system_prompt=f"You look at pages. {PAGE}")

    @tool
    def look() -> str:
        """Ask the looker."""
        config: Any = {"configurable": {"thread_id": thread}} if thread else None
        reply = inner.invoke({"messages": [HumanMessage(QUESTION)]}, config)["messages"][-1]
        looks.append(computed(reply))
        return "Seen."

    looks: list[int] = []
    agent = create_agent(chat, [look], system_prompt=SYSTEM, checkpointer=InMemorySaver())
    first, *turns = [ask(agent, "Look.", f"with a sub-agent, {thread}") for _ in range(3)]
    new = size("Look.") + size(str(chat.script[0])) + size("<tool_response>Seen.</tool_response>")
    assert computed(first) > size(SYSTEM)
    assert all(computed(turn) < new for turn in turns)
    assert looks[0] > size(PAGE)
    assert max(looks[1:]) < 20
