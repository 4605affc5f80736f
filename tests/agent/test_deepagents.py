"""What deepagents computes per turn, with its long prompt, its tools and its sub-agents in one thread.

deepagents requires the SDKs of Anthropic and Google, which it imports only where they are used. So this test runs where
it was installed by hand: pip install --no-deps deepagents wcmatch bracex.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from acting import Acting, computed, total
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from models import TINY
from pydantic import PrivateAttr

from kamera_agent import Kamera
from kamera_agent.pocket.model import build_model, build_processor

deepagents = pytest.importorskip("deepagents", reason="requires SDKs of other providers; see the top of the file")

PAGE = "The page has many words. " * 12


class Noted(Acting):
    """Keeps the replies that a model gave, in order."""

    _replies: list[AIMessage] = PrivateAttr(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        result = super()._generate(messages, *rest, **options)
        [generation] = result.generations
        if "kamera" in generation.message.response_metadata and isinstance(generation.message, AIMessage):
            self._replies.append(generation.message)
        return result


@tool
def read_page(number: int) -> str:
    """Read a page."""
    return f"{number}: {PAGE}"


@pytest.fixture
def roomy() -> Iterator[Kamera]:
    """Random weights with room for the prompt, which takes 9,000 tokens."""
    with Kamera(build_model(replace(TINY, num_layers=2, max_positions=32768)), build_processor()) as kamera:
        yield kamera


def test_every_agent_computes_what_is_new_to_it(roomy: Kamera) -> None:
    """Todos, files and a sub-agent, called by a script: one call each turn, and an answer after it."""
    looks = [{"name": "task", "args": {"description": f"Look {n}.", "subagent_type": "looker"}} for n in range(2)]
    script = [
        {"name": "write_todos", "args": {"todos": [{"content": "Look.", "status": "in_progress"}]}},
        looks[0],
        {"name": "write_file", "args": {"file_path": "/notes.md", "content": PAGE}},
        {"name": "read_file", "args": {"file_path": "/notes.md"}},
        looks[1],
        {"name": "read_page", "args": {"number": 3}},
    ]
    chat = Noted(kamera=roomy, max_tokens=3, script=script)
    looker = {"name": "looker", "description": "Looks at pages.", "system_prompt": f"You look at pages. {PAGE}"}
    agent = deepagents.create_deep_agent(
        model=chat,
        tools=[read_page],
        system_prompt="You operate a browser.",
        subagents=[looker],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "deep"}}
    turns = [
        agent.invoke({"messages": [HumanMessage(f"Turn {number}.")]}, config)["messages"][-1]
        for number in range(len(script))
    ]
    assert computed(turns[0]) == total(turns[0]) > 5000
    # A turn is one reply of the agent: the question and the call, its result, and the markup of the reply.
    for before, after in pairwise(turns):
        assert computed(after) <= total(after) - total(before)
    first, second = [reply for reply in chat._replies if reply.id not in {turn.id for turn in turns}]
    assert total(first) > 5000
    assert computed(first) > total(first) - 20
    assert computed(second) < 20
