"""What objects do first in a forked child."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from functools import cache
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


_living: WeakSet[Forkable] = WeakSet()


@cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):  # Windows has no fork.
        os.register_at_fork(after_in_child=_renew)


def _renew() -> None:
    # The threads that torch computes with stayed with the parent, and OpenMP would wait for them for ever.
    torch.set_num_threads(1)
    for forkable in list(_living):
        forkable.renew()
