"""The browser as tools of an agent. Every tool returns a screenshot."""

from __future__ import annotations

import base64
from typing import Any

from langchain_core.tools import BaseTool, tool

from examples.ui_agent import miniwob
from examples.ui_agent.browser import Browser

Blocks = list[dict[str, Any]]


def make_tools(browser: Browser) -> list[BaseTool]:
    """Make open_page, start_task, click, type_text and scroll for a browser."""

    async def see() -> Blocks:
        data = base64.b64encode(await browser.screenshot()).decode()
        image = {"type": "image", "base64": data, "mime_type": "image/png"}
        return [{"type": "text", "text": await browser.title()}, image]

    @tool
    async def open_page(path: str) -> Blocks:
        """Open a page by its path."""
        await browser.open(path)
        return await see()

    @tool
    async def start_task(name: str) -> Blocks:
        """Open a task of MiniWoB++ and start it."""
        await miniwob.start(browser, name)
        return await see()

    @tool
    async def click(x: int, y: int) -> Blocks:
        """Click at a point of the screen, in pixels from its upper left corner."""
        await browser.click(x, y)
        return await see()

    @tool
    async def type_text(text: str) -> Blocks:
        """Type a text into the element that has the focus."""
        await browser.type(text)
        return await see()

    @tool
    async def scroll(pixels: int) -> Blocks:
        """Scroll the page down by a number of pixels; a negative number scrolls up."""
        await browser.scroll(pixels)
        return await see()

    return [open_page, start_task, click, type_text, scroll]
