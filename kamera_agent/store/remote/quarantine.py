"""What is done with records that are damaged, or of which something is gone."""

from __future__ import annotations

import logging

from kamera_agent.errors import CorruptRecordError
from kamera_agent.store.counters import Counters
from kamera_agent.store.remote.layout import Layout
from kamera_agent.store.remote.listings import Listings
from kamera_agent.store.remote.medium import Blob, Medium
from kamera_agent.trouble import Trouble

_log = logging.getLogger("kamera_agent.store")


class Quarantine:
    """Removes records that cannot be read, so that they are written again. Each method makes requests."""

    def __init__(self, medium: Medium, layout: Layout, listings: Listings, counters: Counters) -> None:
        self._medium, self._layout, self._listings, self._counters = medium, layout, listings, counters
        # Never over: what is damaged stays so.
        self._damage = Trouble(_log, f"records of the shared store {medium.address} are damaged and removed", "")

    def take(self, name: str, blob: Blob, reason: str) -> None:
        """Remove a damaged record, count it and say so once. blob: its header as it was read."""
        self._damage.failed(CorruptRecordError(reason))
        self._counters.add({"quarantined": 1})
        self.forget(name, blob)

    def forget(self, name: str, blob: Blob) -> None:
        """Remove a record of which something is gone, unless it was written anew meanwhile."""
        place = self._layout.header(name)
        if self._medium.get([place])[0] != blob:
            return
        self._medium.delete([place])
        try:
            stored = self._layout.read_header(name, blob)
        except CorruptRecordError:
            # Nobody can tell what belongs to it.
            return
        chunk = self._layout.name(bytes.fromhex(stored.manifest.chunk))
        self._medium.remove(self._layout.folder(chunk), [name])
        self._medium.delete(self._layout.parts(stored))
        self._listings.drop(chunk)
