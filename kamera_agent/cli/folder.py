"""Opening an existing store."""

from __future__ import annotations

from pathlib import Path

from kamera_agent.errors import StoreUnavailableError
from kamera_agent.store.lmdb_store import LmdbStore

# LMDB makes this file when a folder is first opened as a store.
DATABASE = "data.mdb"


def existing_store(path: Path) -> LmdbStore:
    """Open the store in a folder. Raises StoreUnavailableError when there is none, and creates nothing."""
    folder = path.expanduser()
    if folder.exists() and not folder.is_dir():
        raise StoreUnavailableError(f"{folder} is a file; pass the folder of a store.")
    if not (folder / DATABASE).is_file():
        raise StoreUnavailableError(f"{folder} holds no store; pass a folder that a Kamera was opened with.")
    return LmdbStore(folder)
