"""A Chromium with one page of 1280x720: it takes clicks, keys and scrolling, and returns screenshots."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

SIZE = {"width": 1280, "height": 720}
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
# Without GPU, hinting and smooth scrolling, a page has the same pixels on every machine. The sandbox needs privileges
# that containers lack; all pages are our own.
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--font-render-hinting=none", "--disable-smooth-scrolling"),
    "--disable-partial-raster",
)
# On a busy machine, Chromium may still be painting after the page reports that it is painted.
MAX_SHOTS = 10
# At a click, a document already knows whether another one will replace it.
WATCH = "navigation.addEventListener('navigate', event => { window.leaving ||= !event.destination.sameDocument })"
PAINTED = (
    "document.fonts.ready.then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))))"
)


class Browser:
    """Acts on a page; every action waits until the page is settled."""

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._address = address

    async def open(self, path: str) -> None:
        await self._page.goto(f"{self._address}/{path}")
        await self._settle()

    async def click(self, x: float, y: float) -> None:
        await self._page.mouse.click(x, y)
        await self._settle()

    async def type(self, text: str) -> None:
        """Type into the element that has the focus."""
        await self._page.keyboard.type(text)
        await self._settle()

    async def scroll(self, pixels: int) -> None:
        await self._page.evaluate("pixels => scrollBy(0, pixels)", pixels)
        await self._settle()

    async def screenshot(self) -> bytes:
        """The visible part of the page as PNG, 1280x720, once two shots in a row are equal."""
        before = b""
        for _ in range(MAX_SHOTS):
            shot = await self._page.screenshot(animations="disabled", caret="hide")
            if shot == before:
                return shot
            before = shot
        raise TimeoutError(f"{self._page.url} keeps changing: {MAX_SHOTS} screenshots in a row differ.")

    async def title(self) -> str:
        return await self._page.title()

    async def middle(self, selector: str) -> tuple[int, int]:
        """The middle of an element: x and y in pixels."""
        box = await self._page.locator(selector).first.bounding_box()
        if box is None:
            raise LookupError(f"{selector!r} is not visible on {self._page.url}.")
        return round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)

    async def text(self, selector: str) -> str:
        return await self._page.locator(selector).first.inner_text()

    async def run(self, script: str) -> object:
        """Run JavaScript on the page and return its result."""
        result: object = await self._page.evaluate(script)
        await self._settle()
        return result

    async def style(self, css: str) -> None:
        await self._page.add_style_tag(content=css)

    async def _settle(self) -> None:
        await self._page.wait_for_function("!window.leaving")
        await self._page.wait_for_load_state()
        await self._page.evaluate(PAINTED)


def find_chromium() -> str | None:
    """Path of the first Chromium on the PATH, or None."""
    return next(filter(None, map(shutil.which, EXECUTABLES)), None)


@asynccontextmanager
async def open_browser(address: str) -> AsyncIterator[Browser]:
    """A new browser without history. address: the base address of the paths that open() takes."""
    chromium = find_chromium()
    if chromium is None:
        raise SystemExit(f"None of {', '.join(EXECUTABLES)} is on the PATH; install one (apt-get install chromium).")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = await browser.new_page(viewport=SIZE)
        await page.add_init_script(WATCH)
        yield Browser(page, address)
        await browser.close()
