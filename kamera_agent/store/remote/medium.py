"""What a shared tier is kept on: bytes under names, and folders of members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from kamera_agent.config import MIB

Blob = bytes | memoryview
# Large values are written in parts of up to this size, and small ones are joined, because each name costs a request.
PART_BYTES = 8 * MIB


class Medium(Protocol):
    """A server, or a place that looks like one. Safe for use from several threads.

    Each method is one request, or as many at once as it takes. It may raise any exception and take any time; whoever
    waits for it bounds that. Nothing is promised about what was written: any name may be gone at any time.

    address: for messages, without a password. errors: what it raises when it does not answer, or refuses.
    load_bytes: what one get() of many names should take at most: with less it is slower, and with more its caller waits
        longer for the first of it.
    """

    address: str
    load_bytes: int
    errors: tuple[type[Exception], ...]

    def get(self, names: Sequence[str]) -> list[Blob | None]:
        """The bytes under each name; None where there are none."""

    def put(self, blobs: Mapping[str, Blob]) -> None:
        """Write bytes under names, each as a whole, in any order."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove names. Unknown ones are ignored."""

    def members(self, folders: Sequence[str]) -> list[list[str]]:
        """The members of each folder; none of an unknown one."""

    def add(self, folder: str, member: str) -> None:
        """Add a member to a folder."""

    def remove(self, folder: str, members: Sequence[str]) -> None:
        """Remove members from a folder. Unknown ones are ignored."""

    def survey(self, root: str) -> Iterator[tuple[str, int]]:
        """Every name that begins with a root, and the number of its bytes; without folders."""

    def close(self) -> None:
        """Release connections. Idempotent."""


def first_line(error: Exception) -> str:
    """What an error says, without the details that some clients add."""
    return (str(error).splitlines() or [""])[0].rstrip(" .")
