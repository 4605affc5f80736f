"""smolagents over a server: a real agent, and what it sends."""

import json
from pathlib import Path

from examples.web_agents.__main__ import PREFIX_CACHE, load
from examples.web_agents.checkpoint import write_checkpoint
from examples.web_agents.served import repeat, served
from examples.web_agents.smolagents_agent import NUM_STEPS, run


def test_smolagents(tmp_path: Path) -> None:
    """Twelve steps of an agent that shows two screenshots, and its requests over what a prefix cache keeps."""
    write_checkpoint(tmp_path / "caller")
    with load(tmp_path / "caller") as kamera, served(kamera) as (url, recorder):
        run(url, str(tmp_path / "caller"))
    with load(tmp_path / "caller", **PREFIX_CACHE) as kamera:
        prefix = repeat(kamera, recorder.requests)
    sent = [json.loads(body)["messages"] for body in recorder.requests]
    assert len(sent) == NUM_STEPS
    assert [json.dumps(messages).count("data:image/png") for messages in sent] == [0, 1, *[2] * (NUM_STEPS - 2)]
    assert [cost.prompt for cost in recorder.costs] == [cost.prompt for cost in prefix]
    # Screenshots go from the fourth step on.
    assert recorder.costs[:3] == prefix[:3]
    assert sum(cost.computed for cost in recorder.costs[3:]) < sum(cost.computed for cost in prefix[3:])
