"""The door of a window: one edit or answer at a time, and no healing meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar
from weakref import ref

from kamera_agent.errors import WindowError
from kamera_agent.forking import Forkable
from kamera_agent.runtime.engine import Engine


class Hold:
    """Has a window to itself while it lives or until it is let go."""


class Door(Forkable):
    """Lets edits and answers into a window, one at a time.

    hold: of the edit or answer that has the window to itself, by a weak reference: a holder that was interrupted in its
        last line is gone all the same.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.hold: ref[Hold] | None = None
        super().__init__()

    def renew(self) -> None:
        self._lock = threading.Lock()
        # Held while a slice is healed.
        self.slice = threading.Lock()

    @property
    def is_held(self) -> bool:
        """Whether an edit or an answer has the window to itself."""
        return self.hold is not None and self.hold() is not None

    def take(self, hold: ref[Hold]) -> None:
        """Have the window to oneself from now on. Raises WindowError while somebody else has it."""
        with self._lock:
            if self.is_held:
                raise WindowError("The window is busy with an answer; exhaust or close the stream first.")
            self.hold = hold
        self.engine.answers.add(hold)
        # A slice of healing that runs gives way now.
        with self.slice:
            pass


class Room(Protocol):
    """What has a door."""

    _door: Door


P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Room)


def alone(method: Callable[Concatenate[R, P], T]) -> Callable[Concatenate[R, P], T]:
    """Keep other edits and answers out while a method runs."""

    @wraps(method)
    def alone(room: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        door, hold = room._door, ref(holder := Hold())
        try:
            door.take(hold)
            return method(room, *args, **kwargs)
        finally:
            # Before any call: Python looks for signals at calls and loops, so Ctrl-C cannot come before this.
            if door.hold is hold:
                door.hold = None
            door.engine.answers.discard(hold)
            del holder

    return alone
