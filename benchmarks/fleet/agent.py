"""An agent that asks about windows of screenshots: over the real runtime, and over the one without its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.fleet.hollow import HollowEngine
from kamera_agent import ImageContent, Kamera, Reply, TextContent
from kamera_agent.chunk import Chunk
from kamera_agent.config import Settings
from kamera_agent.vision.image import Pixels
from kamera_agent.window.assembly import Assembly
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, Layout
from kamera_agent.window.library import Library
from kamera_agent.window.plan import Plan
from kamera_agent.window.step import make_plan

QUESTION = "What changed?"


class RealAgent:
    """A conversation over a Kamera. draw: the pixels of a screen."""

    def __init__(self, kamera: Kamera, draw: Callable[[str], Pixels]) -> None:
        self._kamera, self._draw = kamera, draw
        self._window = kamera.window()

    def ask(self, screens: Sequence[str]) -> Reply:
        """Ask about a window of these screens. What was computed is in the store when this returns."""
        self._window.sync([ImageContent(self._draw(screen)) for screen in screens])
        reply = self._window.generate(QUESTION, max_tokens=1)
        self._kamera.flush()
        return reply


class HollowAgent:
    """A conversation without the work of a model. chunk: of a screen."""

    def __init__(
        self, engine: HollowEngine, library: Library, settings: Settings, chunk: Callable[[str], Chunk]
    ) -> None:
        self._library, self._chunk = library, chunk
        self._assembly, self._layout = Assembly(engine, library, settings), Layout(engine.family)
        items = Items(engine.family, settings, engine.family.chat.default_system)
        self._system, self._question = items.live[0], items.make(TextContent(QUESTION))
        self._shown: list[Item] = []

    def ask(self, screens: Sequence[str]) -> Plan:
        """Ask about a window of these screens."""
        # A window may show a screen twice.
        names = [f"{screen}.{screens[:number].count(screen)}" for number, screen in enumerate(screens)]
        images = (Item(name, "image", "user", self._chunk(screen)) for name, screen in zip(names, screens, strict=True))
        self._shown = [self._system, *images]
        return make_plan(self._assembly.run(self._layout.places([*self._shown, self._question], "reply")).steps)

    def remember(self) -> None:
        """Have the store keep what was computed, as a Kamera does in the background."""
        self._assembly.settle(keep=len(self._layout.places(self._shown)))
        self._library.flush()
