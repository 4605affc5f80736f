"""A short memory of what a shared tier listed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic

from kamera_agent.store.remote.layout import Stored

# What others put into a chunk that was just listed is found after this time.
LISTED_S = 30.0
MAX_CHUNKS = 1024

Listing = Mapping[str, Stored]


class Listings:
    """The records of chunks by name, as they were listed within the last LISTED_S seconds. Names of chunks are keys."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The time until which a listing is used, and the listing; the oldest first.
        self._listings: OrderedDict[str, tuple[float, Listing]] = OrderedDict()
        self._chunks: dict[str, str] = {}
        self.num_changes = 0

    def find(self, chunk: str) -> Listing | None:
        """The records of a chunk; None where it was not listed lately."""
        until, listing = self._listings.get(chunk, (float("-inf"), None))
        return listing if monotonic() < until else None

    def find_record(self, name: str) -> Stored | None:
        """A record of a chunk that was listed lately."""
        return (self.find(self._chunks.get(name, "")) or {}).get(name)

    def keep(self, listings: Mapping[str, Listing], num_changes: int) -> None:
        """Remember listings, unless something has changed since there were so many changes."""
        with self._lock:
            if num_changes != self.num_changes:
                return
            until = monotonic() + LISTED_S
            for chunk, listing in listings.items():
                self._forget(chunk)
                self._listings[chunk] = until, listing
                self._chunks |= dict.fromkeys(listing, chunk)
            while len(self._listings) > MAX_CHUNKS:
                self._forget(next(iter(self._listings)))

    def drop(self, chunk: str) -> None:
        """Forget a chunk, because it has changed."""
        with self._lock:
            self.num_changes += 1
            self._forget(chunk)

    def _forget(self, chunk: str) -> None:
        _, listing = self._listings.pop(chunk, (0.0, {}))
        for name in listing:
            self._chunks.pop(name, None)
