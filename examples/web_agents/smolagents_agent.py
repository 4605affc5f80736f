"""smolagents' ToolCallingAgent with its own OpenAI client, on a few drawn pages."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import numpy as np
from PIL import Image
from smolagents import ActionStep, LogLevel, OpenAIServerModel, ToolCallingAgent, tool

from kamera_agent.pocket.renderer import draw_screen
from kamera_agent.pocket.world import World

TASK = "Find who is where."
NUM_STEPS, MAX_TOKENS = 12, 60


@tool
def open_page(page: Literal["home", "people", "rooms", "keys"]) -> str:
    """Open a page.

    Args:
        page: The page.
    """
    return f"The page {page} is open."


def see(step: ActionStep, agent: Any) -> None:
    """Show the newest screenshot and the one before, as the browser agent of smolagents does."""
    for earlier in agent.memory.steps:
        if isinstance(earlier, ActionStep) and earlier.step_number <= step.step_number - 2:
            earlier.observations_images = None
    (page,) = World(np.random.default_rng(step.step_number)).tell("links", 1)
    step.observations_images = [Image.fromarray(draw_screen(page))]


def run(url: str, model: str) -> None:
    """Let the agent open pages. Its model is too weak to choose between tools, so it is told which one to call."""
    steering = {"type": "function", "function": {"name": open_page.name}}
    agent = ToolCallingAgent(
        tools=[open_page],
        model=OpenAIServerModel(
            model, api_base=url, api_key="none", temperature=0, max_tokens=MAX_TOKENS, tool_choice=steering
        ),
        step_callbacks=[see],
        verbosity_level=LogLevel.OFF,
    )
    steps = (step for step in agent.run(TASK, stream=True) if isinstance(step, ActionStep))
    for step in islice(steps, NUM_STEPS):
        if step.error:
            raise step.error
