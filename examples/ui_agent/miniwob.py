"""MiniWoB++ tasks on the page: starting one, and reading its instruction and reward."""

from __future__ import annotations

from examples.ui_agent.browser import Browser

SEED = 7
# A task is only 160x210 pixels large. Its display counts seconds and its canvas marks clicks, so no two runs would look
# alike.
LOOK = "html { zoom: 3 } #reward-display, #click-canvas { display: none }"
# An hour instead of ten seconds, so that a slow model does not end the episode.
START = f"core.EPISODE_MAX_TIME = 3600000; Math.seedrandom({SEED}); core.startEpisodeReal()"


async def start(browser: Browser, name: str) -> None:
    """Open a task and start an episode with the fixed seed."""
    await browser.open(f"miniwob/miniwob/{name}.html")
    await browser.style(LOOK)
    await browser.run(START)


async def wanted(browser: Browser) -> str:
    """The instruction of the task."""
    return " ".join((await browser.text("#query")).split())


async def reward(browser: Browser) -> float:
    """1 if the episode is over and solved, without the discount for time; else 0."""
    value = await browser.run("WOB_DONE_GLOBAL ? WOB_RAW_REWARD_GLOBAL : 0")
    assert isinstance(value, int | float), value
    return float(value)
