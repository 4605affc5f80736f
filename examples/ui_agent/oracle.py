"""The oracle: the moves through the shop and through each MiniWoB++ task, with a question after each move.

The model has no part in the moves. The agent clicks on pixels; the oracle reads their coordinates from the page.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from examples.ui_agent import miniwob
from examples.ui_agent.browser import Browser

# This question has no right answer, but both ways of running the model should give the same one.
MUSING = "What changed?"
# Ten of the shop's thirteen rows, so that the cards are on the grid again after scrolling.
SCROLL = 554


@dataclass(frozen=True, slots=True)
class Move:
    """A tool call, and the question about the screens that are in sight after it.

    answer: the right one; None if the model under test cannot know it.
    """

    tool: str
    arguments: dict[str, Any]
    question: str = MUSING
    answer: str | None = None


Oracle = Callable[[Browser], AsyncIterator[Move]]


async def all_moves(browser: Browser) -> AsyncIterator[Move]:
    """All moves: the shop, two tasks, the shop's lists once more, and the other tasks."""
    for errand in (buy, click_button, enter_text, check, click_tab, click_checkboxes, login_user):
        async for move in errand(browser):
            yield move


async def buy(browser: Browser) -> AsyncIterator[Move]:
    """Look through the shop, look back at earlier screenshots, and buy the lamp."""
    yield Move("open_page", {"path": "shop/prices.html"}, "What does the bike cost?", "45")
    yield await click(browser, "nav >> text=April sale", "Which price changed?", "clock")
    yield await click(browser, "nav >> text=Owners", "Who owns the lamp?", "anna")
    yield await click(browser, "nav >> text=Rooms", "Where is the owner of the lamp?", "attic")
    yield await click(browser, "nav >> text=Keys", "Which key does the owner of the lamp need?", "15")
    yield await click(browser, "nav >> text=Second House", "What does the drum cost?", "28")
    yield await click(browser, ".hero .button", "What does the chair cost?", "31")
    yield Move("scroll", {"pixels": SCROLL}, "What does the tent cost?", "22")
    yield Move("look_back", {"steps": [3]}, "Who owns the tent?", "ben")
    yield Move("scroll", {"pixels": -SCROLL}, "What does the coat cost?", "17")
    yield await click(browser, ".tile >> nth=0", "What does the lamp cost?", "24")
    yield await click(browser, ".actions .button >> nth=0", "What does the piano cost?", "49")
    yield Move("look_back", {"steps": [4]}, "Where is ivan?", "vault")
    yield await click(browser, ".cart-actions .button >> nth=0", "What does the lamp cost?", "24")
    yield await click(browser, "#name", "What does the lamp cost?", "24")
    yield Move("type_text", {"text": "Gus"})
    yield await click(browser, "#agree")
    yield await click(browser, "#order", "Which key opens the attic?", "15")


async def check(browser: Browser) -> AsyncIterator[Move]:
    """Look through the shop's lists twice, in the same order as before."""
    yield Move("open_page", {"path": "shop/owners.html"}, "Who owns the boat?", "lena")
    for _ in range(2):
        yield await click(browser, "nav >> text=Rooms", "Where is the owner of the boat?", "mill")
        yield await click(browser, "nav >> text=Keys", "Which key does lena need?", "29")
        yield await click(browser, "nav >> text=April sale", "What does the desk cost?", "47")
        yield await click(browser, "nav >> text=Owners", "Who owns the boat?", "lena")
    yield Move("look_back", {"steps": [1]}, "What does the lamp cost?", "24")


async def click_button(browser: Browser) -> AsyncIterator[Move]:
    yield Move("start_task", {"name": "click-button"})
    name = _quoted(await miniwob.wanted(browser))
    yield await click(browser, f'#area button:text-is("{name}")')
    await _solved(browser)


async def enter_text(browser: Browser) -> AsyncIterator[Move]:
    yield Move("start_task", {"name": "enter-text"})
    text = _quoted(await miniwob.wanted(browser))
    yield await click(browser, "#tt")
    yield Move("type_text", {"text": text})
    yield await click(browser, "#subbtn")
    await _solved(browser)


async def click_tab(browser: Browser) -> AsyncIterator[Move]:
    yield Move("start_task", {"name": "click-tab"})
    number = re.findall(r"\d+", await miniwob.wanted(browser))[0]
    yield await click(browser, f'#area li a:text-is("Tab #{number}")')
    await _solved(browser)


async def click_checkboxes(browser: Browser) -> AsyncIterator[Move]:
    yield Move("start_task", {"name": "click-checkboxes"})
    names = re.sub(r"^Select | and click Submit\.$", "", await miniwob.wanted(browser)).split(", ")
    for name in names:
        yield await click(browser, f'label:text-is("{name}") input')
    yield await click(browser, "#subbtn")
    await _solved(browser)


async def login_user(browser: Browser) -> AsyncIterator[Move]:
    yield Move("start_task", {"name": "login-user"})
    name, password = re.findall(r'"(.*?)"', await miniwob.wanted(browser))
    for selector, text in (("#username", name), ("#password", password)):
        yield await click(browser, selector)
        yield Move("type_text", {"text": text})
    yield await click(browser, "#subbtn")
    await _solved(browser)


async def _solved(browser: Browser) -> None:
    if (reward := await miniwob.reward(browser)) != 1:
        raise RuntimeError(f"The oracle did not solve {await browser.title()!r}: reward {reward}.")


async def click(browser: Browser, selector: str, question: str = MUSING, answer: str | None = None) -> Move:
    """A click on the middle of an element of the current page."""
    x, y = await browser.middle(selector)
    return Move("click", {"x": x, "y": y}, question, answer)


def _quoted(text: str) -> str:
    return re.findall(r'"(.*?)"', text)[0]
