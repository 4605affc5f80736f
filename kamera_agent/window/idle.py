"""What is done for a window while no answer is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kamera_agent.config import Settings
from kamera_agent.window.assembly import Assembly
from kamera_agent.window.door import Door
from kamera_agent.window.healer import Healer
from kamera_agent.window.items import Items
from kamera_agent.window.layout import Item, Layout, Place

# Takes what tells whether it must give way to an answer.
IdleTask = Callable[[Callable[[], bool]], None]


class _GaveWay(Exception):
    """Ends a slice of healing, because an answer is wanted."""


class Idle:
    """Has a window healed, and then does a task."""

    def __init__(
        self, items: Items, layout: Layout, assembly: Assembly, settings: Settings, healer: Healer, door: Door
    ) -> None:
        self._items, self._layout, self._assembly = items, layout, assembly
        self._settings, self._healer, self._door = settings, healer, door
        # What the window is expected to hold next; None where that is what it holds.
        self._expected: Sequence[Item] | None = None
        self._task: IdleTask | None = None

    def expect(self, items: Sequence[Item] | None) -> None:
        """Heal for a window that will hold these items; None for the window as it is."""
        self._expected = items
        self.wake()

    def wake(self) -> None:
        """Have the window healed soon, if the settings say so."""
        if self._settings.heal != "never":
            self._healer.wake(self)

    def then(self, task: IdleTask) -> None:
        """Have a task done once all is healed. Only the last one that was given is done."""
        self._task = task
        self._healer.wake(self)

    def heal(self, gives_way: Callable[[], bool]) -> int | None:
        """Compute the next spans that are not exact, up to a chunk: those of the expected window first.

        gives_way: looked at between layers; where it returns True, the window is left as it was.
        Returns the number of tokens, 0 where all that can be is exact, and None where the window is busy or the slice
        gave way.
        """

        def tick() -> None:
            if gives_way():
                raise _GaveWay

        with self._door.slice:
            if self._door.is_held:
                return None
            try:
                healed = (self._assembly.heal(places, tick, beside=beside) for places, beside in self._targets())
                if tokens := next(filter(None, healed), 0):
                    return tokens
            except _GaveWay:
                return None
            task, self._task = self._task, None
            if task:
                task(gives_way)
            return 0

    def _targets(self) -> Iterator[tuple[Sequence[Place], bool]]:
        """What is to be healed, nearest first, and whether that goes beyond the unchanged beginning of the window."""
        live, expected, heal = self._items.live, self._expected, self._settings.heal
        if heal == "ahead" and expected is not None:
            yield self._layout.places(expected), True
        if heal != "never":
            yield self._layout.places(live), heal == "ahead" and expected is None
