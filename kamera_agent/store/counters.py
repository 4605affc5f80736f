"""Counters that several threads add to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

from kamera_agent.forking import Forkable


class Counters(Forkable):
    """Sums by name. The names are those of the counting fields of StoreStats."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: Counter[str] = Counter()

    def renew(self) -> None:
        self._lock = threading.Lock()

    def add(self, amounts: Mapping[str, int]) -> None:
        """Add all amounts in one step."""
        with self._lock:
            self._sums.update(amounts)

    def snapshot(self) -> dict[str, int]:
        """The sums so far."""
        with self._lock:
            return dict(self._sums)
