"""The numbers of screenshots: each is given once, in a thread of its own."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from kamera_agent.agent.run import find_run
from kamera_agent.agent.screens import Screen

Key = tuple[str, str]

# Threads, and screenshots of each, whose numbers are remembered where the messages do not hold them.
MAX_THREADS = 1_000
MAX_SCREENS = 10_000


class Numbering:
    """The steps of one thread. A step that a block holds stands; the others are remembered by screenshot."""

    def __init__(self, highest: int = 0) -> None:
        self.highest = highest
        self._known: list[tuple[Key, int]] = []

    def number(self, screens: Sequence[Screen]) -> list[Screen]:
        """The screenshots with a step each: its own, the remembered one, or the next after the highest."""
        held = _held(screens)
        self.highest = max(self.highest, *held.values(), 0)
        others = [index for index in range(len(screens)) if index not in held]
        free = [(key, step) for key, step in self._known if step not in set(held.values())]
        steps = _align([screens[index].key for index in others], free)
        for index, step in zip(others, steps, strict=True):
            if step is None:
                self.highest = step = self.highest + 1
                self._known.append((screens[index].key, step))
            held[index] = step
        del self._known[:-MAX_SCREENS]
        return [replace(screen, step=held[index]) for index, screen in enumerate(screens)]

    def num_known(self, screens: Sequence[Screen]) -> int:
        """How many of the screenshots have a remembered step."""
        return (Counter(key for key, _ in self._known) & Counter(screen.key for screen in screens)).total()


class Numberings:
    """The numberings of all threads that a ScreenWindow shows. Safe for several threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The thread last used at the end. A thread without a name has a number.
        self._threads: OrderedDict[str | int, Numbering] = OrderedDict()
        self._num_nameless = 0

    def number(self, screens: Sequence[Screen], thread: str | None = None, highest: int = 0) -> list[Screen]:
        """The screenshots with their steps.

        thread: its name; by default the thread of the run, or else the one that has most of the screenshots.
        highest: a step that the thread has reached.
        """
        if len(_held(screens)) == len(screens):
            return list(screens)
        with self._lock:
            name = thread or current_thread() or self._find(screens)
            numbering = self._threads.setdefault(name, Numbering())
            self._threads.move_to_end(name)
            if len(self._threads) > MAX_THREADS:
                self._threads.popitem(last=False)
            numbering.highest = max(numbering.highest, highest)
            return numbering.number(screens)

    def _find(self, screens: Sequence[Screen]) -> int:
        """The thread without a name that has most of the screenshots; a new one where none has any."""
        nameless = [name for name in reversed(self._threads) if isinstance(name, int)]
        best = max(nameless, key=lambda name: self._threads[name].num_known(screens), default=None)
        if best is not None and self._threads[best].num_known(screens):
            return best
        self._num_nameless += 1
        return self._num_nameless


def current_thread() -> str | None:
    """The thread of the running graph, with the nodes that the run is nested in; None outside of a thread.

    A sub-agent inherits the thread of its caller, but has messages of its own.
    """
    run = find_run(None)
    # The last node is the running one: the model and look_back run in different nodes over the same messages.
    return "|".join([run.thread, *run.agent.split("|")[:-1]]) if run.thread else None


def _held(screens: Sequence[Screen]) -> dict[int, int]:
    """The steps that blocks hold, by index. A step that comes twice is of another thread, and counts once."""
    first = {screen.step: index for index, screen in reversed([*enumerate(screens)]) if screen.step}
    return {index: step for step, index in first.items()}


def _align(keys: Sequence[Key], known: Sequence[tuple[Key, int]]) -> list[int | None]:
    """The known steps of screenshots, which may be equal to each other.

    Messages leave anywhere and come at the end. So the longest beginning that is known in this order was seen before,
    and among equal screenshots the newest are those that stayed, where the newest match at all.
    """
    length, place = 0, 0
    for key in keys:
        while place < len(known) and known[place][0] != key:
            place += 1
        if place == len(known):
            break
        length, place = length + 1, place + 1
    if [key for key, _ in known[len(known) - length :]] == [*keys[:length]]:
        place = len(known)
    steps: list[int | None] = [None] * len(keys)
    unused = list(known)
    for index in reversed(range(length)):
        while unused[place := place - 1][0] != keys[index]:
            pass
        steps[index] = unused.pop(place)[1]
    # The rest is in another order, or new.
    for index in range(length, len(keys)):
        place = next((place for place, (key, _) in enumerate(unused) if key == keys[index]), -1)
        steps[index] = unused.pop(place)[1] if place >= 0 else None
    return steps
