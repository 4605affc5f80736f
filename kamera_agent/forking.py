"""What objects do first in a forked child."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from functools import cache
from time import monotonic
from typing import ClassVar
from weakref import WeakSet

import torch


class Forkable(ABC):
    """Has state that a forked child must make anew.

    A child has none of its parent's threads, so a lock that one of them held at the fork would stay taken.
    """

    def __init__(self) -> None:
        _watch()
        _living.add(self)
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Make the locks. Called at construction, and first thing in a forked child."""


class Pausing(Forkable):
    """Works in threads, under locks of a library that nobody can make anew: a fork waits for the end.

    depth: threads that work here may hold what those of a smaller depth hold.
    """

    depth: ClassVar[int] = 0

    @abstractmethod
    def pause(self, timeout: float) -> bool:
        """Keep all threads out once none works. Returns False, with nothing changed, if one still does then."""

    @abstractmethod
    def resume(self) -> None:
        """Let the threads in again."""


class Computing(Pausing):
    """Computes with torch. busy: held while a thread computes."""

    busy: threading.Lock

    def pause(self, timeout: float) -> bool:
        return self.busy.acquire(timeout=timeout)

    def resume(self) -> None:
        self.busy.release()


# How long a fork waits.
PATIENCE_S = 5.0

_living: WeakSet[Forkable] = WeakSet()
_paused: list[Pausing] = []


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):  # Windows has no fork.
        os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_renew)


def _pause() -> None:
    end = monotonic() + PATIENCE_S
    working = [forkable for forkable in list(_living) if isinstance(forkable, Pausing)]
    for each in sorted(working, key=lambda each: each.depth):
        if each.pause(max(0.0, end - monotonic())):
            _paused.append(each)


def _resume() -> None:
    while _paused:
        _paused.pop().resume()


def _renew() -> None:
    _paused.clear()
    # The threads that torch computes with stayed with the parent, and OpenMP would wait for them for ever.
    torch.set_num_threads(1)
    for forkable in list(_living):
        forkable.renew()
