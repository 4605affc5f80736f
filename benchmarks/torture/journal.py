"""What a process has done to a store, line by line, in a file that outlives it; and what the store may hold then."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.torture.records import make_key, versioned_record
from kamera_agent.store.base import Store

Versions = Mapping[str, int]


class Writer:
    """Changes a store, and notes each change before it is made, and each flush after it returned.

    A line is written in one call, so a process that is killed leaves whole lines.
    """

    def __init__(self, store: Store, path: Path) -> None:
        self._store = store
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def put(self, name: str, version: int) -> None:
        record = versioned_record(name, version)
        self.note("put", name, version)
        self._store.put_many([record])

    def delete(self, name: str) -> None:
        self.note("delete", name)
        self._store.delete([make_key(name)])

    def flush(self) -> None:
        self._store.flush()
        self.note("settled")

    def close(self) -> None:
        self._store.close()
        self.note("settled")

    def note(self, *words: Any) -> None:
        """Add a line."""
        os.write(self._file, (json.dumps(words) + "\n").encode())


def read_journal(content: bytes) -> list[list[Any]]:
    """The lines of a journal; one that was cut off is left out."""
    return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


@dataclass
class Expected:
    """What a store may hold that evicts nothing: of each name the versions, None for no record.

    settled: what it held when the last flush returned. possible: that, or what came of any change since.
    """

    settled: dict[str, int | None] = field(default_factory=dict)
    possible: dict[str, set[int | None]] = field(default_factory=dict)

    @classmethod
    def after(cls, lines: Iterable[list[Any]]) -> Expected:
        expected, now = cls(), dict[str, int | None]()
        for word, *details in lines:
            if word == "settled":
                expected.settled = dict(now)
                expected.possible = {name: {version} for name, version in now.items()}
                continue
            name, version = (*details, None)[:2]
            is_over_nothing = "/" in name and now.get(name.partition("/")[0]) is None
            if version != now.get(name):
                for patch in [each for each in now if each.startswith(f"{name}/")]:
                    expected._may_become(now, patch, None)
            expected._may_become(now, name, None if is_over_nothing else version)
        return expected

    def _may_become(self, now: dict[str, int | None], name: str, version: int | None) -> None:
        self.possible.setdefault(name, {now.get(name)}).add(version)
        now[name] = version

    def num_lost(self, found: Versions) -> int:
        """Number of names whose settled record is gone, or made way for one that nobody put since."""
        return sum(found.get(name) not in possible for name, possible in self.possible.items())
