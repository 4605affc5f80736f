"""Agents over a server: real clients, and what they send."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.web_agents import computer_use_agent, smolagents_agent
from examples.web_agents.__main__ import PREFIX_CACHE, load
from examples.web_agents.checkpoint import write_checkpoint
from examples.web_agents.served import repeat, served

# The screenshots in each of their twelve requests. Before the first one goes, a prefix cache computes as much.
AGENTS = {
    "smolagents": (smolagents_agent, [0, 1, *[2] * 10], 3),
    "computer-use": (computer_use_agent, [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5], 6),
}


@pytest.mark.parametrize(("agent", "num_shown", "num_same"), AGENTS.values(), ids=AGENTS)
def test_twelve_steps(tmp_path: Path, agent: Any, num_shown: list[int], num_same: int) -> None:
    """An agent that leaves screenshots out, and its requests over what a prefix cache keeps."""
    write_checkpoint(tmp_path / "caller")
    with load(tmp_path / "caller") as kamera, served(kamera) as (url, recorder):
        agent.run(url, str(tmp_path / "caller"))
    with load(tmp_path / "caller", **PREFIX_CACHE) as kamera:
        prefix = repeat(kamera, recorder.requests)
    sent = [json.dumps(json.loads(body)["messages"]) for _, body in recorder.requests]
    assert [messages.count("image/png") for messages in sent] == num_shown
    assert [cost.prompt for cost in recorder.costs] == [cost.prompt for cost in prefix]
    assert recorder.costs[:num_same] == prefix[:num_same]
    assert sum(cost.computed for cost in recorder.costs[num_same:]) < sum(cost.computed for cost in prefix[num_same:])
