"""The screens that agents meet: applications by popularity, entries into them, and what is private to a session."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.fleet.traces import Trace

Window = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Population:
    """Applications, each with the screens of a recorded trace.

    exponent: of Zipf's law, by which sessions choose an application, and the step of its trace at which they enter.
    private: share of the screens whose content is another in each session, such as a cart: no other session meets them.
    session_len: steps of a session.
    """

    traces: Sequence[Trace]
    num_applications: int
    exponent: float = 1.0
    private: float = 0.3
    session_len: int = 20

    @property
    def num_shared(self) -> float:
        """Screens that sessions may have in common: the working set, on average."""
        screens = [1 + max(map(max, trace)) for trace in self.traces]
        return (1 - self.private) * self.num_applications * sum(screens) / len(screens)

    def sessions(self, rng: random.Random) -> Iterator[list[Window]]:
        """Sessions without end: the windows of each, by the names of screens.

        A window has no screen that the recorded agent saw before the session enters.
        """
        while True:
            application = _zipf(rng, self.num_applications, self.exponent)
            trace = self.traces[application % len(self.traces)]
            entry = _zipf(rng, len(trace) - self.session_len + 1, self.exponent)
            windows = trace[entry : entry + self.session_len]
            yield self._session(f"{rng.getrandbits(64):x}", f"app{application}", windows)

    def _session(self, session: str, application: str, windows: Trace) -> list[Window]:
        names: dict[int, str] = {}
        found = []
        for window in windows:
            names.setdefault(window[-1], self._name(f"{application}.{window[-1]}", session))
            found.append(tuple(names[screen] for screen in window if screen in names))
        return found

    def _name(self, screen: str, session: str) -> str:
        # Of its own random number, so that a screen is private in all sessions or in none.
        is_private = random.Random(screen).random() < self.private
        return f"{screen}.{session}" if is_private else screen


def _zipf(rng: random.Random, size: int, exponent: float) -> int:
    """A number below size; the first ones are the most frequent."""
    return rng.choices(range(size), [1 / rank**exponent for rank in range(1, size + 1)])[0]
