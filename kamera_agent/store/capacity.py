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
MAX_DEFAULT_CAP_BYTES = 20 * 1024 * MIB
# A process has 128 TiB of addresses.
MAX_MAP_BYTES = 16 * 1024 * 1024 * MIB

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
    """Size of the LMDB map for a cap.

    It is twice the cap, because replaced pages stay until no reader needs them, plus 256 MiB for the batch being
    written. The map is address space and bounds the file; it takes no disk in advance.
    """
    return min(2 * (cap_bytes // MIB + 128) * MIB, MAX_MAP_BYTES)
