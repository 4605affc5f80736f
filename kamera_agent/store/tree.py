"""A sum over the pages of a database that LMDB trusts. They are read as bytes, so nothing in them can end the process.

LMDB follows the numbers in its two meta pages, in the branches and leaves of its trees, and in the list of free pages.
Of a value in pages of its own, it trusts the head. The content of values is left out: it is most of a file, it has
checksums, and LMDB only copies it. So is what free pages hold.

The layout is that of LMDB 0.9 with addresses of 64 bits, in the byte order of this machine. Sizes are in bytes.

page    its number (8), 2 unused, flags (2), where the places of its nodes end (2), 2 unused, the places (2 each), nodes
branch  each node: number of a page (6), size of the key (2), key
leaf    each node: size of the value (4), flags (2), size of the key (2), key, and the value; or the number of its first
        page (8); or what describes a tree (48), whose root is at byte 40
meta    after the head of a page: magic number (4), 20 unused, what describes the tree of free pages, which begins with
        the size of a page (4), and that of the tables; number of the last page (8), number of the transaction (8)
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from xxhash import xxh3_128

from kamera_agent.errors import CorruptRecordError

MAGIC = 0xBEEFC0DE
HEAD_BYTES, META_BYTES = 16, 152
PAGE_SIZES = [1 << shift for shift in range(12, 16)]
BRANCH, LEAF = 1, 2
# Flags of a node: its value has pages of its own, or is a tree.
IN_PAGES, IS_TREE = 1, 2
ROOT = 40
NO_PAGE = (1 << 64) - 1
_META = struct.Struct("=16xI20xI36xQ40xQ8xQ")

Numbers = np.ndarray[Any, np.dtype[Any]]


def sum_of_tree(database: Path) -> str:
    """The xxh3-128 of a database that nobody writes to, as 32 hexadecimal digits.

    Raises OSError, and CorruptRecordError where the pages contradict each other.
    """
    with database.open("rb", buffering=0) as file:
        return _Walk(file).sum_of_all()


class _Walk:
    """Reads the pages from the roots on, in an order that follows from their content."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, file.seek(0, os.SEEK_END)
        self._sum = xxh3_128()
        self._seen = set[int]()
        self._page_bytes = 0

    def sum_of_all(self) -> str:
        """See sum_of_tree()."""
        _, free, tables = max(self._meta(0), self._meta(1))
        try:
            self._follow(free, is_free=True)
            self._follow(tables, is_free=False)
        except IndexError as error:
            raise CorruptRecordError(f"a node is outside its page: {error}") from error
        return self._sum.hexdigest()

    def _meta(self, number: int) -> tuple[int, int, int]:
        """Number of the last transaction, and the roots of the free pages and of the tables, by a meta page."""
        magic, self._page_bytes, free, tables, transaction = _META.unpack(self._take(number, META_BYTES))
        if magic != MAGIC or self._page_bytes not in PAGE_SIZES:
            raise CorruptRecordError("a meta page is not one of LMDB 0.9")
        return transaction, free, tables

    def _follow(self, root: int, is_free: bool) -> None:
        """Take all pages of a tree. is_free: whether it is that of free pages, whose values LMDB trusts."""
        left = [root]
        while left:
            number = left.pop()
            if number == NO_PAGE:
                continue
            if number in self._seen:
                raise CorruptRecordError(f"page {number} is met twice")
            self._seen.add(number)
            page = self._take(number, self._page_bytes)
            flags, end = np.frombuffer(page, np.uint16)[5:7]
            if flags not in (BRANCH, LEAF):
                raise CorruptRecordError(f"page {number} is neither a branch nor a leaf")
            nodes = _Nodes(page, int(end))
            if flags == BRANCH:
                left += nodes.children()
                continue
            left += nodes.roots()
            for first, size in nodes.values():
                self._take(first, HEAD_BYTES + (size if is_free else 0))

    def _take(self, number: int, num_bytes: int) -> bytes:
        """The first bytes of a page, which go into the sum."""
        start = number * self._page_bytes
        if start + num_bytes > self._size:
            raise CorruptRecordError(f"page {number} is beyond the end of the file")
        self._file.seek(start)
        taken = self._file.read(num_bytes)
        self._sum.update(taken)
        return taken


class _Nodes:
    """The nodes of a page, all read at once. Raises IndexError for one that is outside."""

    def __init__(self, page: bytes, end: int) -> None:
        self._bytes = np.frombuffer(page, np.uint8)
        halves = self._bytes.view(np.uint16)
        places = halves[HEAD_BYTES // 2 : end // 2] // 2
        self._low, self._high, self._flags, key_bytes = (halves[places + step].astype(np.int64) for step in range(4))
        self._starts = 2 * places.astype(np.int64) + 8 + key_bytes

    def children(self) -> list[int]:
        """The numbers of the pages below a branch."""
        numbers: list[int] = (self._low | self._high << 16 | self._flags << 32).tolist()
        return numbers

    def values(self) -> list[tuple[int, int]]:
        """Of each value of a leaf that has pages of its own, the number of the first, and its size."""
        are_in_pages = self._flags == IN_PAGES
        sizes = (self._low | self._high << 16)[are_in_pages]
        return list(zip(self._longs(self._starts[are_in_pages]), sizes.tolist(), strict=True))

    def roots(self) -> list[int]:
        """The roots of the trees that a leaf describes."""
        return self._longs(self._starts[self._flags == IS_TREE] + ROOT)

    def _longs(self, starts: Numbers) -> list[int]:
        longs: list[int] = self._bytes[starts[:, None] + np.arange(8)].view(np.uint64).ravel().tolist()
        return longs
