"""A disk, made of the changes that a process made: what may be on it after a power cut at any moment."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# See note() in calls.c.
HEAD = struct.Struct("<cIQQQ")
SECTOR = 512


class Change(NamedTuple):
    """What happened to a file: created, written, written durably, synced, truncated, renamed, unlinked; folder synced.

    data: what was written at a place; of R the new path.
    """

    what: str
    path: str
    inode: int
    at: int
    data: bytes


def read_changes(log: bytes) -> Iterator[Change]:
    """The changes that calls.c recorded, in order."""
    place = 0
    while place < len(log):
        what, path_size, inode, at, size = HEAD.unpack_from(log, place)
        place += HEAD.size
        path, data = log[place : place + path_size].decode(), log[place + path_size : place + path_size + size]
        place += path_size + size
        yield Change(what.decode(), path, inode, at, data)


@dataclass
class Disk:
    """What is durable, and what is not yet.

    files: the durable content by inode. unsynced: changes of content since, by inode. names: the durable inodes by
    path. unsynced_names: changes of names since, which a disk keeps in order.
    """

    files: dict[int, bytearray] = field(default_factory=dict)
    unsynced: dict[int, list[Change]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    unsynced_names: list[Change] = field(default_factory=list)

    def take(self, change: Change) -> None:
        """Make a change."""
        if change.what == "C":
            self.files[change.inode], self.unsynced[change.inode] = bytearray(), []
        match change.what:
            case "W" | "T":
                self.unsynced[change.inode].append(change)
            case "D":
                _write(self.files[change.inode], change)
            case "S":
                for each in self.unsynced.pop(change.inode, []):
                    _write(self.files[change.inode], each)
                self.unsynced[change.inode] = []
            case "F":
                _rename(self.names, self.unsynced_names)
                self.unsynced_names.clear()
            case _:
                self.unsynced_names.append(change)

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files after a power cut now: of what is not synced, any sectors, and names up to some change."""
        names, share = dict(self.names), rng.choice([0.0, 0.3, 0.7, 1.0])
        _rename(names, self.unsynced_names[: round(share * len(self.unsynced_names))])
        contents = {}
        for path, inode in names.items():
            content = bytearray(self.files[inode])
            for change in self.unsynced[inode]:
                for each in _sectors(change):
                    if rng.random() < share:
                        _write(content, each)
            contents[path] = bytes(content)
        return contents


def _rename(names: dict[str, int], changes: list[Change]) -> None:
    for change in changes:
        if change.what == "C":
            names[change.path] = change.inode
        elif (inode := names.pop(change.path, None)) is not None and change.what == "R":
            names[change.data.decode()] = inode


def _sectors(change: Change) -> Iterator[Change]:
    if change.what == "T":
        yield change
    start = 0
    while start < len(change.data):
        stop = min(len(change.data), start + SECTOR - (change.at + start) % SECTOR)
        yield change._replace(at=change.at + start, data=change.data[start:stop])
        start = stop


def _write(content: bytearray, change: Change) -> None:
    if change.what == "T":
        content[:] = content[: change.at].ljust(change.at, b"\0")
        return
    content.extend(bytes(max(0, change.at + len(change.data) - len(content))))
    content[change.at : change.at + len(change.data)] = change.data


def lay_out(contents: dict[str, bytes], root: Path, folder: Path) -> None:
    """Write the files below root to a folder."""
    for path, content in contents.items():
        file = folder / Path(path).relative_to(root)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
