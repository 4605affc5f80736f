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

    A child has none of its parent's threads, so a lock that one of them held at the fork would stay taken. That is true
    of the locks within torch as well, which nobody can make anew: a fork waits until no thread computes.

    is_innermost: whether its busy lock is taken by threads that hold those of others.
    """

    is_innermost: ClassVar[bool] = False
    busy: threading.Lock | None = None  # Held while a thread of ours computes.

    def __init__(self) -> None:
        _watch()
        _living.add(self)
        self.renew()

    @abstractmethod
    def renew(self) -> None:
        """Make the locks. Called at construction, and first thing in a forked child."""


# How long a fork waits for them.
PATIENCE_S = 5.0

_living: WeakSet[Forkable] = WeakSet()
_held: list[threading.Lock] = []


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):  # Windows has no fork.
        os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_renew)


def _pause() -> None:
    end = monotonic() + PATIENCE_S
    for forkable in sorted(_living, key=lambda forkable: forkable.is_innermost):
        if (lock := forkable.busy) and lock.acquire(timeout=max(0.0, end - monotonic())):
            _held.append(lock)


def _resume() -> None:
    while _held:
        _held.pop().release()


def _renew() -> None:
    _held.clear()
    # The threads that torch computes with stayed with the parent, and OpenMP would wait for them for ever.
    torch.set_num_threads(1)
    for forkable in list(_living):
        forkable.renew()
