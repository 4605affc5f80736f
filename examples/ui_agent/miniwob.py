"""Tasks of MiniWoB++ on the page: how one is started, and what it says of the outcome."""

from __future__ import annotations

from examples.ui_agent.browser import Browser

SEED = 7
# A task is 160x210 pixels large. Its display counts seconds and its canvas marks clicks: no two runs would look alike.
LOOK = "html { zoom: 3 } #reward-display, #click-canvas { display: none }"
# A model may think as long as it likes: an hour instead of ten seconds.
START = f"core.EPISODE_MAX_TIME = 3600000; Math.seedrandom({SEED}); core.startEpisodeReal()"


async def start(browser: Browser, name: str) -> None:
    """Open a task and start its episode with the fixed seed."""
    await browser.open(f"miniwob/miniwob/{name}.html")
    await browser.style(LOOK)
    await browser.run(START)


async def wanted(browser: Browser) -> str:
    """What the task asks for."""
    return " ".join((await browser.text("#query")).split())


async def reward(browser: Browser) -> float:
    """1 where the episode is over and all was right; without the discount for time."""
    value = await browser.run("WOB_DONE_GLOBAL ? WOB_RAW_REWARD_GLOBAL : 0")
    assert isinstance(value, int | float), value
    return float(value)
