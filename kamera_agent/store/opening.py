"""Opening a store by the places that callers name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce

from kamera_agent.config import Settings
from kamera_agent.errors import SettingError
from kamera_agent.options import is_url, path_of, several
from kamera_agent.store.base import Store
from kamera_agent.store.lmdb_store import LmdbStore
from kamera_agent.store.memory import MemoryStore
from kamera_agent.store.remote.address import open_shared
from kamera_agent.store.tiered import TieredStore

# A folder or a URL.
StorePlace = str | os.PathLike[str]
StoreChoice = Store | StorePlace | Sequence[StorePlace] | None
# Settings that a folder keeps, and what sets them in an LmdbStore.
AGREED = {"eviction": "set_policy", "quota_bytes": "set_quota", "ttl_s": "set_ttl"}


def open_store(store: StoreChoice, settings: Settings) -> Store:
    """The store of these places, over a memory tier; None keeps records in memory only; a Store is used as it is.

    Raises SettingError, StoreUnavailableError, and MissingExtraError where a place needs a package that is missing.
    """
    if isinstance(store, Store):
        # Nothing of a MemoryStore is on a disk.
        if settings.encryption_key is not None and not (store.is_encrypted or isinstance(store, MemoryStore)):
            raise SettingError("encryption_key does not change an open store; give the key to LmdbStore(key=...).")
        for name, method in AGREED.items():
            if getattr(settings, name) is not None:
                raise SettingError(f"{name} does not change an open store; use {method}() of it.")
        return store
    if store is None:
        return MemoryStore(settings.memory_bytes)
    places = [store] if isinstance(store, (str, os.PathLike)) else several("store", store)
    if not places:
        raise SettingError("store is an empty list; name a folder or a URL in it, or use None.")
    tiers: list[Store] = [MemoryStore(settings.memory_bytes)]
    try:
        for place in places:
            tiers.append(_tier(path_of("store", place), settings))
    except BaseException:
        for tier in tiers:
            tier.close()
        raise
    return reduce(lambda lower, upper: TieredStore(upper, lower), reversed(tiers))


def _tier(place: str, settings: Settings) -> Store:
    """The store in a folder, or at a URL."""
    key = settings.encryption_key
    if is_url(place):
        return open_shared(place, settings.shared_timeout_ms / 1000, key)
    return LmdbStore(
        place,
        settings.disk_bytes,
        key=key,
        policy=settings.eviction,
        quota_bytes=settings.quota_bytes,
        ttl_s=settings.ttl_s,
    )
