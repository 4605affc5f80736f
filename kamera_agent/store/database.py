"""What the parts of the disk tier need of a database. `Environment` is the one that LMDB provides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from kamera_agent.store.tables import Tables

T = TypeVar("T")


class Transaction(Protocol):
    """The calls of an LMDB transaction that are made here. Its buffers die with it."""

    def get(self, key: bytes, default: None = None, db: Any = None) -> memoryview | None: ...
    def put(self, key: bytes, value: Any, *, db: Any = None) -> bool: ...
    def delete(self, key: bytes, *, db: Any = None) -> bool: ...
    def cursor(self, db: Any = None) -> Any: ...
    def stat(self, db: Any = None) -> Any: ...


class Database(Protocol):
    """Tables in a folder, and transactions over them."""

    path: Path
    tables: Tables

    def read(self, query: Callable[[Transaction], T]) -> T | None:
        """The answer of a query inside a read transaction; None, with a warning, when the medium fails.

        Raises StoreClosedError after close().
        """

    def write(self, change: Callable[[Transaction], T]) -> T | None:
        """Make a change in one write transaction and sync it; None when no room is left and nothing changed.

        Any other trouble leaves nothing changed either and is raised. One thread at a time.
        """

    def close(self) -> None:
        """Release the files once no transaction runs."""

    def abandon(self) -> None:
        """Let go of a database that a parent process opened, without touching its files."""
