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


class Computing(Forkable):
    """Computes in threads, under locks of torch that nobody can make anew: a fork waits for the end.

    busy: held while a thread computes.
    is_innermost: whether `busy` is taken by threads that hold those of others.
    """

    busy: threading.Lock
    is_innermost: ClassVar[bool] = False


# How long a fork waits.
PATIENCE_S = 5.0

_living: WeakSet[Forkable] = WeakSet()
_held: list[threading.Lock] = []


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):  # Windows has no fork.
        os.register_at_fork(before=_pause, after_in_parent=_resume, after_in_child=_renew)


def _pause() -> None:
    end = monotonic() + PATIENCE_S
    computing = [forkable for forkable in list(_living) if isinstance(forkable, Computing)]
    for each in sorted(computing, key=lambda each: each.is_innermost):
        if each.busy.acquire(timeout=max(0.0, end - monotonic())):
            _held.append(each.busy)


def _resume() -> None:
    while _held:
        _held.pop().release()


def _renew() -> None:
    _held.clear()
    # The threads that torch computes with stayed with the parent, and OpenMP would wait for them for ever.
    torch.set_num_threads(1)
    for forkable in list(_living):
        forkable.renew()
