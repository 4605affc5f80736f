"""The cap of a store, and the bytes that a record counts against it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from kamera_agent.chunk import Header
from kamera_agent.config import MIB
from kamera_agent.errors import SettingError
from kamera_agent.options import whole

MIN_RECORD_BYTES = 4096
PAGE_BYTES = 4096
MAX_BATCH_BYTES = 64 * MIB
MAX_DEFAULT_CAP_BYTES = 20 * 1024 * MIB
# A process has 128 TiB of addresses.
MAX_MAP_BYTES = 16 * 1024 * 1024 * MIB
# More than since 1970.
MAX_SECONDS = 10**10

_log = logging.getLogger("kamera_agent.store")


def record_bytes(header: Header) -> int:
    """The bytes that a record counts against a cap: its tensors, but at least a disk page for header and index."""
    return max(header.num_bytes, MIN_RECORD_BYTES)


def require_bytes(name: str, value: int) -> int:
    """The value as an int. Raises SettingError when it is negative or not a whole number."""
    num_bytes = whole(name, value)
    if num_bytes < 0:
        raise SettingError(f"{name} is {num_bytes}; use 0 or more bytes.")
    return num_bytes


def require_seconds(name: str, value: int) -> int:
    """The value as an int. Raises SettingError when it is not a whole number above 0, or longer than centuries."""
    seconds = whole(name, value)
    if not 0 < seconds <= MAX_SECONDS:
        raise SettingError(f"{name} is {seconds}; use a whole number of seconds from 1 to {MAX_SECONDS}.")
    return seconds


def default_cap_bytes(folder: Path) -> int:
    """A tenth of the free disk under an existing folder, at most 20 GiB. Logs the choice."""
    free_bytes = shutil.disk_usage(folder).free
    cap_bytes = min(free_bytes // 10, MAX_DEFAULT_CAP_BYTES)
    _log.info(
        "store %s may hold %d MiB: a tenth of the %d MiB free, at most %d MiB; `kamera resize` changes it",
        folder,
        cap_bytes // MIB,
        free_bytes // MIB,
        MAX_DEFAULT_CAP_BYTES // MIB,
    )
    return cap_bytes


def map_bytes(cap_bytes: int) -> int:
    """Size of the LMDB map for a cap, which bounds the file: a tenth more than the cap, but 4 MiB at least.

    It takes no disk in advance. The tenth holds the index, and what the last transactions replaced: LMDB uses pages
    again two commits after they became free, and not while a reader may need them. If it is full, records are evicted
    below the cap.
    """
    size = max(cap_bytes + cap_bytes // 10, cap_bytes + 4 * MIB)
    return min(size // PAGE_BYTES * PAGE_BYTES, MAX_MAP_BYTES)


def batch_bytes(cap_bytes: int) -> int:
    """Bytes that one transaction writes: three of them fit in what the map has above the cap."""
    return min(cap_bytes // 32, MAX_BATCH_BYTES)
