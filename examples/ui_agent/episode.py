"""One run of the agent through all its moves."""

from __future__ import annotations

import tempfile

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from examples.ui_agent.actor import Actor, Record
from examples.ui_agent.browser import open_browser
from examples.ui_agent.oracle import all_moves
from examples.ui_agent.server import serve
from examples.ui_agent.tools import make_tools
from examples.ui_agent.turn import Arm
from kamera_agent.agent import ScreenWindow

KEEP_LAST = 3
TASK = "Buy the lamp, do the tasks, look after the lists."


async def play(arm: Arm, max_steps: int | None = None) -> list[Record]:
    """Run the agent in a new browser, and let the arm answer. max_steps: None runs all steps."""
    with serve() as address, tempfile.TemporaryDirectory() as folder:
        async with open_browser(address) as browser:
            actor = Actor(arm=arm, moves=all_moves(browser), max_steps=max_steps)
            window = ScreenWindow(keep_last=KEEP_LAST, folder=folder)
            agent = create_agent(actor, make_tools(browser), middleware=[window])
            await agent.ainvoke({"messages": [HumanMessage(TASK)]}, {"recursion_limit": 1000})
            return actor.records
